"""What the recipe's phases share: the optimizer, its schedule, and randomness by step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from mechvrp.models.zoo.recipe import Recipe

__all__ = ["Phase", "step_rng"]


def step_rng(seed: int, phase: str, step: int) -> np.random.Generator:
    """The generator of one step's data: a function of the step, so resuming needs no state."""
    return np.random.default_rng([seed, sum(map(ord, phase)), step])


class Phase(ABC):
    """One phase of the recipe.

    Subclasses set ``name`` and implement ``loss`` and, if they have something to decide, ``after``.

    Attributes:
        modules: what is trained or saved, by name.
        steps: how many steps the phase takes.
        rate: peak learning rate; the weights of ``slow`` learn at ``slow_rate`` times it.
        state: JSON-able state beside the weights (curriculum stage, measurements).
    """

    name = ""

    def __init__(
        self,
        recipe: Recipe,
        modules: dict[str, torch.nn.Module],
        *,
        steps: int,
        rate: float,
        slow: torch.nn.Module | None = None,
        slow_rate: float = 1.0,
    ) -> None:
        self.recipe = recipe
        self.modules = modules
        self.steps = steps
        self.rate = rate
        self.state: dict[str, Any] = {}
        weights = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        unique = list(dict.fromkeys(weights))
        slowed = set() if slow is None else set(slow.parameters())
        groups = []
        for share, inside in ((1.0, False), (slow_rate, True)):
            mine = [p for p in unique if (p in slowed) is inside]
            for decay, matrix in ((recipe.weight_decay, True), (0.0, False)):
                chosen = [p for p in mine if (p.ndim >= 2) is matrix]
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "share": share})
        self.parameters = unique
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))

    @abstractmethod
    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """The loss of a batch drawn from ``rng``."""

    def after(self, step: int) -> None:  # noqa: B027 (most phases have nothing to decide)
        """Called when ``step`` steps are done."""

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to 2 percent of the peak."""
        warm = min(1.0, (step + 1) / max(1, self.recipe.warmup))
        return self.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    def step(self, step: int) -> float:
        """Take one step; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.learning_rate(step)
        loss = self.loss(step_rng(self.recipe.seed, self.name, step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimizer.step()
        return float(loss.detach())
