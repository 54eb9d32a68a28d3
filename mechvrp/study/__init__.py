"""Studies: run, keep, report."""

from mechvrp.study.config import StudyConfig as StudyConfig
from mechvrp.study.runner import StudyResult as StudyResult
from mechvrp.study.runner import run_study as run_study

__all__ = ["StudyConfig", "StudyResult", "run_study"]
