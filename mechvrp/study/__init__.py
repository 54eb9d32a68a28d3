"""Studies: run, keep, report."""

from mechvrp.study.comparing import RunComparison as RunComparison
from mechvrp.study.comparing import compare_runs as compare_runs
from mechvrp.study.config import StudyConfig as StudyConfig
from mechvrp.study.runner import StudyResult as StudyResult
from mechvrp.study.runner import run_study as run_study

__all__ = ["RunComparison", "StudyConfig", "StudyResult", "compare_runs", "run_study"]
