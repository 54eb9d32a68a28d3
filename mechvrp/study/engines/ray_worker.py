"""What runs in a worker of the engine ``ray``: one replica of a model. Ray itself is not used here."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mechvrp.errors import WorkerError
from mechvrp.models import VLM, fingerprint, load
from mechvrp.store import Chunks, software_versions
from mechvrp.store.places import is_remote, unreachable
from mechvrp.study.engines.base import Piece

__all__ = ["Loaded", "ReplicaWorker", "Target"]

#: Seconds within which a file that another machine wrote must be seen (NFS keeps listings that long).
_SEEN_WITHIN = 60.0


@dataclass(frozen=True)
class Loaded:
    """A replica: what it is, and where."""

    name: str
    fingerprint: str
    packages: dict[str, str | None]
    host: str
    device: str


@dataclass(frozen=True)
class Target:
    """Where a stage's pieces go, and the file by which a worker knows that it is the same folder."""

    folder: Path
    total: int
    size: int
    sign: Path
    token: str


class ReplicaWorker:
    """A model, and pieces made with it.

    Args:
        folder: where the study was started; relative paths mean the same in a worker.
        threads: of torch.
    """

    def __init__(self, folder: str, threads: int) -> None:
        self.folder = folder
        torch.set_num_threads(threads)
        self.model: VLM | None = None

    def place(self) -> str:
        """The machine; answering says that the worker has one."""
        return socket.gethostname()

    def load(self, entry: str, device: str, dtype: str) -> Loaded:
        """Load the replica.

        Raises:
            WorkerError: the folder that the study was started in is not there.
            MechVRPError: as ``mechvrp.load``.
        """
        host = socket.gethostname()
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise WorkerError(
                f"{host} has no {self.folder}, where the study was started ({error.strerror}): start it in a "
                "folder that all machines share"
            ) from error
        self.model = load(entry, device=device, dtype=dtype)
        packages = software_versions()["packages"]
        print_of = fingerprint(self.model)
        return Loaded(self.model.name, print_of, packages, host, str(self.model.device))

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """``question(model, *arguments)``."""
        return question(self.model, *arguments)

    def piece(
        self,
        compute: Callable[..., Piece],
        inputs: Any,
        target: Target,
        index: int,
    ) -> None:
        """Make a piece and write it where it belongs.

        Raises:
            WorkerError: this machine does not see the run folder, or the study has ended meanwhile.
            RunFolderError: a store does not let this machine in, or does not answer.
            MechVRPError: of the computation.
        """
        _check_folder(target)
        piece = compute(self.model, inputs, lambda steps: None)
        # A study that was killed may be followed by another one in its place before this worker is ended.
        if not _is_there(target):
            raise WorkerError(
                f"the study that asked for piece {index} has ended; nothing is written"
            )
        chunks = Chunks(target.folder, target.total, target.size)
        chunks.write(index, piece.table, piece.arrays, piece.dims, piece.notes)


def _check_folder(target: Target) -> None:
    """Whether the run folder is the one that the study's own process writes."""
    deadline = time.monotonic() + _SEEN_WITHIN
    while True:
        if _is_there(target):
            return
        if time.monotonic() > deadline:
            raise WorkerError(
                f"{socket.gethostname()} does not see the run folder {target.sign.parent}: workers write into "
                "it, so it must be on storage that all machines share, under the same path or address"
            )
        time.sleep(0.5)


def _is_there(target: Target) -> bool:
    """Whether the study's sign is seen; a store that does not let this machine in is an error."""
    remote = is_remote(target.sign)
    with unreachable(target.sign):
        try:
            if not remote:
                os.listdir(
                    target.sign.parent
                )  # a network file system may have kept an older listing
            return target.sign.read_text() == target.token
        except FileNotFoundError:
            return False
        except OSError:
            if remote:
                raise
            return False
