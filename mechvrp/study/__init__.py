"""Studies: run, keep, report."""

from mechvrp.study.comparing import RunComparison as RunComparison
from mechvrp.study.comparing import compare_runs as compare_runs
from mechvrp.study.config import StudyConfig as StudyConfig
from mechvrp.study.planning import ModelPlan as ModelPlan
from mechvrp.study.planning import StudyPlan as StudyPlan
from mechvrp.study.planning import plan_study as plan_study
from mechvrp.study.runner import StudyResult as StudyResult
from mechvrp.study.runner import run_study as run_study
from mechvrp.study.settings import PRESETS as PRESETS

__all__ = [
    "PRESETS",
    "ModelPlan",
    "RunComparison",
    "StudyConfig",
    "StudyPlan",
    "StudyResult",
    "compare_runs",
    "plan_study",
    "run_study",
]
