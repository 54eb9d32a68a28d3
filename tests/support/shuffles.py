"""Studies with few shuffles of labels, for tests that are not about these: they take most of a small run."""

from __future__ import annotations

from typing import Any

import pytest

from mechvrp.study import correlate_stage


def few_shuffles(patch: pytest.MonkeyPatch, draws: int = 3) -> None:
    """Until the patch is undone, the control of every probe in a study has so many draws (else at least 20)."""
    real = correlate_stage.compare_with_baselines

    def fewer(*args: Any, **options: Any) -> Any:
        return real(*args, **{**options, "draws": draws})

    patch.setattr(correlate_stage, "compare_with_baselines", fewer)
