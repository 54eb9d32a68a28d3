"""``StudyConfig``: what a study was asked to do, checked before any compute."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from mechvrp.errors import InputError

__all__ = ["StudyConfig"]


@dataclass(frozen=True)
class StudyConfig:
    """Settings of a study; all of them are kept in the run folder.

    Attributes:
        models: names, folders or hub ids.
        data: name of the dataset.
        root, split, task: as ``mechvrp.data.load``.
        n: examples.
        seed: of the data, the split of images, the folds, the resampling and the random draws.
        test_size: share of the images that is held out.
        draws: random sets of units beside each top-k, at least 20.
        ks: numbers of units to zero; by default 0, 1, 2, 5, ... up to half of the width.
        n_resamples: bootstrap resamples behind each interval.
        batch_size: examples a forward.
        max_new_tokens: longest answer.
        samples: sampled answers an example, for self-consistency; 0 for none.
        device, dtype: as ``mechvrp.load``.
        reading: how yes/no answers are read, ``"official"`` (POPE's own code: whatever is not a no
            counts as a yes) or ``"strict"`` (only yes and no count). By default the official one
            for ``pope``, else strict.
        given: what identifies a dataset or models that were passed as objects; filled in by
            ``run_study``, so that another object is another configuration.
    """

    models: tuple[str, ...] = ("tiny-llava",)
    data: str = "scenes"
    root: str | None = None
    split: str | None = None
    task: str | None = None
    n: int = 400
    seed: int = 0
    test_size: float = 0.5
    draws: int = 20
    ks: tuple[int, ...] | None = None
    n_resamples: int = 2000
    batch_size: int = 32
    max_new_tokens: int = 16
    samples: int = 10
    device: str = "auto"
    dtype: str = "auto"
    reading: Literal["official", "strict"] | None = None
    given: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("a study needs at least one model")
        if len(set(self.models)) != len(self.models):
            raise InputError(f"each model once, please; got {', '.join(self.models)}")
        for name, least in (
            ("n", 20),
            ("draws", 20),
            ("n_resamples", 100),
            ("batch_size", 1),
            ("max_new_tokens", 1),
            ("samples", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(
                    f"{name} must be a whole number of at least {least}; got {value!r}"
                )
        if not 0.1 <= self.test_size <= 0.9:
            raise InputError(
                f"test_size is a share of the images, 0.1 to 0.9; got {self.test_size}"
            )
        if self.reading not in (None, "official", "strict"):
            raise InputError(f"reading must be 'official' or 'strict'; got {self.reading!r}")
        if self.ks is not None and (list(self.ks) != sorted(set(self.ks)) or self.ks[:1] != (0,)):
            raise InputError(f"ks must ascend from 0, e.g. 0 1 2 5 10; got {list(self.ks)}")

    @property
    def yes_no(self) -> Literal["official", "strict"]:
        """How yes/no answers are read."""
        return self.reading or ("official" if self.data == "pope" else "strict")

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
