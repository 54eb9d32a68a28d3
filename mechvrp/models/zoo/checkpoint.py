"""Training checkpoints: tensors as safetensors, the rest as JSON. Nothing is pickled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mechvrp.errors import DataError

__all__ = ["load_checkpoint", "read_record", "save_checkpoint"]


def save_checkpoint(
    folder: Path,
    modules: dict[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    record: dict[str, Any],
) -> None:
    """Write weights, optimizer state and ``record``; a killed run leaves the checkpoint before."""
    tensors = {
        f"weights.{name}.{key}": value.detach().clone()  # tied weights may not share memory here
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = value.detach().contiguous()
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(tensors, fresh / "state.safetensors")
    (fresh / "record.json").write_text(json.dumps(record, indent=1))
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a checkpoint, or ``None`` if there is no checkpoint."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():  # killed between two renames
        os.replace(old, folder)
    path = folder / "record.json"
    return json.loads(path.read_text()) if path.exists() else None


def load_checkpoint(
    folder: Path, modules: dict[str, torch.nn.Module], optimizer: torch.optim.Optimizer | None
) -> None:
    """Load what ``save_checkpoint`` wrote into ``modules`` and, unless ``None``, ``optimizer``.

    Raises:
        DataError: there is no checkpoint, or it is of another model.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        raise DataError(f"no checkpoint in {folder}")
    tensors = load_file(path)
    for name, module in modules.items():
        start = f"weights.{name}."
        weights = {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(f"the checkpoint in {folder} is of another model: {error}") from error
    if optimizer is None:
        return
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, field = key.split(".", 2)
            state.setdefault(int(index), {})[field] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
