"""Some code in several processes that divide a model between them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def _run(
    rank: int, world: int, port: int, work: Callable[..., Any], given: tuple[Any, ...]
) -> None:
    import torch.distributed as dist

    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({"MASTER_ADDR": "127.0.0.1", **{k: str(v) for k, v in own.items()}})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        work(rank, *given)
    finally:
        dist.destroy_process_group()


def in_processes(work: Callable[..., Any], *given: Any, world: int = 2) -> None:
    """Run ``work(rank, *given)`` in each of some processes; an error in one fails here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_run, (world, port, work, given), nprocs=world)


def saved(name: str, folder: Path) -> str:
    """A tiny model of a family, in a folder as ``mechvrp.load`` takes it."""
    from tests.support import tiny

    tiny.hf_model(name).save_pretrained(folder)
    tiny.processor(name).save_pretrained(folder)
    return str(folder)
