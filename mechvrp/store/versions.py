"""What a run was made with: packages, Python, and what else results can depend on."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import torch

__all__ = ["UNKNOWN", "software_versions"]

_PACKAGES = (
    *("mechvrp", "einops", "jaxtyping", "nnsight", "numpy", "pandas", "pillow", "plotly"),
    *("pyarrow", "safetensors", "scikit-learn", "scipy", "torch", "torchvision"),
    *("transformers", "xarray"),
)
_LOST = "not known: versions.json was lost"
#: In place of `software_versions`, where the file was lost that held them.
UNKNOWN: dict[str, Any] = {
    "packages": {},
    **dict.fromkeys(("python", "system", "machine", "torch_threads", "cuda_device"), _LOST),
}


def software_versions() -> dict[str, Any]:
    """Versions and settings that results can depend on; names no host, user or folder.

    Keys: ``packages`` (name to version, null where not installed), ``python``, ``system``,
    ``machine`` (the processor's architecture), ``torch_threads``, ``cuda_device`` (or null).
    """

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "packages": {package: version(package) for package in _PACKAGES},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.system(),
        "machine": platform.machine(),
        "torch_threads": torch.get_num_threads(),
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
