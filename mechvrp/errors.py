"""Every error mechvrp raises on purpose.

A message says what was given, what was expected and what to do. The tree::

    MechVRPError
    +-- InputError             a caller's argument is unusable (also a ValueError)
    |   +-- SiteError          no such site, layer, unit or position
    |   +-- ShapeError         a tensor of the wrong shape or dtype
    |   +-- DataError          a dataset, file, record or image is unusable
    |   +-- RunFolderError     a run folder is missing, foreign or damaged
    +-- UnsupportedModelError  no family describes this model
    +-- UnavailableError       this model or attention implementation cannot give it
    +-- WorkerError            processes that compute for this one cannot be started, or end
    +-- NumericalError         NaN or infinity where a number was expected
"""

__all__ = [
    "DataError",
    "InputError",
    "MechVRPError",
    "NumericalError",
    "RunFolderError",
    "ShapeError",
    "SiteError",
    "UnavailableError",
    "UnsupportedModelError",
    "WorkerError",
]


class MechVRPError(Exception):
    """Base class of every error that mechvrp raises on purpose."""


class InputError(MechVRPError, ValueError):
    """A caller's argument is unusable."""


class SiteError(InputError):
    """No such site, layer, unit or position in this model or batch."""


class ShapeError(InputError):
    """A tensor has the wrong shape or dtype for the place it is meant for."""


class DataError(InputError):
    """A dataset, file, record or image is unusable; the message names the record."""


class RunFolderError(InputError):
    """A run folder is missing, was written by something else, or is damaged."""


class UnsupportedModelError(MechVRPError):
    """No registered family describes this model's architecture."""


class UnavailableError(MechVRPError):
    """This model, or its attention implementation, cannot provide what was asked for."""


class NumericalError(MechVRPError):
    """NaN or infinity where a finite number was expected."""


class WorkerError(MechVRPError):
    """Processes that compute for this one cannot be started, do not fit it, or end again and again."""
