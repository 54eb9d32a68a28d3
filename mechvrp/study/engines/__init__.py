"""Where a study's model computes: in this process, or in workers that each hold a replica."""

from mechvrp.study.engines.base import Engine as Engine
from mechvrp.study.engines.base import Piece as Piece
from mechvrp.study.engines.base import Work as Work
from mechvrp.study.engines.choosing import ENGINES as ENGINES
from mechvrp.study.engines.choosing import check_engine as check_engine
from mechvrp.study.engines.choosing import open_engines as open_engines
from mechvrp.study.engines.local import LocalEngine as LocalEngine
from mechvrp.study.engines.local import loader as loader

__all__ = [
    "ENGINES",
    "Engine",
    "LocalEngine",
    "Piece",
    "Work",
    "check_engine",
    "loader",
    "open_engines",
]
