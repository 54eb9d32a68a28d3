"""Resampling images and random sets of units together: the two are crossed, every set sees every image."""

from __future__ import annotations

import numpy as np

from mechvrp.errors import InputError
from mechvrp.statistics import Estimate

__all__ = ["Crossed"]


class Crossed:
    """Bootstrap resamples of images and, independently, of draws; all statistics share them.

    Args:
        groups: ``[example]``, image ids.
        seed: of the resampling.
        n_resamples: how many.
        images: all images to resample from, where others are resampled along with these (two curves on
            partly the same images); by default those of ``groups``.
        stream: a number for the draws' own resamples: two curves have draws of their own.

    Raises:
        InputError: fewer than two images.
    """

    def __init__(
        self,
        groups: np.ndarray,
        *,
        seed: int = 0,
        n_resamples: int = 2000,
        images: np.ndarray | None = None,
        stream: int = 0,
    ) -> None:
        names = np.unique(groups) if images is None else np.unique(images)
        self._image = np.searchsorted(names, groups)
        self._n = len(names)
        self.n_groups = len(np.unique(groups))
        if self.n_groups < 2:
            raise InputError(f"expected at least 2 images, got {self.n_groups}")
        self.n = len(groups)
        self.n_resamples = n_resamples
        self._seed, self._stream = seed, stream
        rng = np.random.default_rng(seed)
        share = np.full(self._n, 1 / self._n)
        self._weights = rng.multinomial(self._n, share, size=n_resamples).astype(np.float64)
        self._counts = self._weights @ np.bincount(self._image, minlength=self._n)
        self._counts[self._counts == 0] = np.nan  # none of its own images: left out by quantiles

    def means(self, values: np.ndarray) -> np.ndarray:
        """``[resample, ...]`` means of ``[..., example]`` over resampled images."""
        flat = np.asarray(values, dtype=np.float64).reshape(-1, self.n)
        found = self._weights @ self._sums(flat).T / self._counts[:, None]
        return np.asarray(found.reshape(self.n_resamples, *np.shape(values)[:-1]))

    def drawn(self, values: np.ndarray) -> np.ndarray:
        """``[resample, k]`` means of ``[draw, k, example]`` over resampled images and draws.

        A resampled draw has all its k: they are nested.
        """
        draws, ks, _ = values.shape
        rng = np.random.default_rng([self._seed, 1 + self._stream])
        chosen = rng.multinomial(draws, np.full(draws, 1 / draws), size=self.n_resamples) / draws
        found = np.empty((self.n_resamples, ks))
        for k in range(ks):
            sums = self._sums(np.asarray(values[:, k], dtype=np.float64))
            found[:, k] = ((chosen @ sums) * self._weights).sum(1) / self._counts
        return found

    def estimate(self, value: float, resampled: np.ndarray, *, draws: bool) -> Estimate:
        """The value with the 95 % percentile interval of its resamples."""
        low, high = np.nanquantile(resampled, [0.025, 0.975])
        method = f"percentile bootstrap over images{' and draws' if draws else ''}"
        bad = int(np.isnan(resampled).sum())
        return Estimate(
            float(value), float(low), float(high), self.n, self.n_groups, 0.95, method, bad
        )

    def _sums(self, rows: np.ndarray) -> np.ndarray:
        """``[row, image]`` sums of ``[row, example]``."""
        found = np.zeros((len(rows), self._n))
        order = np.argsort(self._image, kind="stable")
        present, starts = np.unique(self._image[order], return_index=True)
        found[:, present] = np.add.reduceat(rows[:, order], starts, axis=1)
        return found
