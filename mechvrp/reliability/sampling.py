"""Nucleus sampling whose draws belong to samples, not to runs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvrp.errors import InputError
from mechvrp.statistics.checks import check_count, check_seed

if TYPE_CHECKING:
    from mechvrp.models import Batch

__all__ = ["Nuclei", "Sampling", "nuclei_of"]

#: How many tokens of a distribution are looked at first; more only where these are not enough.
_FIRST = 256


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled; the study's setting by default.

    Attributes:
        k: answers a sample; 0 samples none.
        temperature: logits are divided by it, above 0.
        top_p: the most probable tokens are kept whose mass reaches it, above 0 and at most 1 (Holtzman et
            al. 2019, arXiv 1904.09751). No other cut is made (transformers' own default top-k is not).
        seed: draws are keyed by (seed, sample), so neither the batch nor its order changes them.
    """

    k: int = 10
    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(self.k, "k", 0)
        if not _is_number(self.temperature) or not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be a number above 0; got {self.temperature!r}")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1; got {self.top_p!r}")
        check_seed(self.seed)

    def uniforms(self, batch: Batch, steps: int) -> Float[np.ndarray, "example step k"]:
        """A draw from 0 to 1 for each token of each sampled answer."""
        return np.stack([self._stream(key).random((steps, self.k)) for key in batch.keys])

    def _stream(self, key: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed}\0{key}".encode()).digest()
        return np.random.default_rng(list(digest[:16]))


@dataclass(frozen=True)
class Nuclei:
    """What is sampled from, of many distributions at once, most probable token first; on the CPU.

    Attributes:
        tokens: token ids; behind ``counts``, tokens that are not in the nucleus.
        probabilities: within the nucleus, summing to 1; 0 behind ``counts``.
        counts: tokens in each nucleus.
    """

    tokens: Int[Tensor, "row rank"]
    probabilities: Float[Tensor, "row rank"]
    counts: Int[Tensor, " row"]

    def draw(self, uniforms: Float[Tensor, "row draw"]) -> Int[Tensor, "row draw"]:
        """Token ids by inversion of the cumulated probabilities."""
        edges = self.probabilities.cumsum(-1)
        rank = torch.searchsorted(edges, uniforms.to(edges).contiguous(), right=True)
        # Rounding can leave the last edge just below a draw.
        return self.tokens.gather(-1, torch.minimum(rank, self.counts[:, None] - 1))


def nuclei_of(logits: Float[Tensor, "row d_vocab"], temperature: float, top_p: float) -> Nuclei:
    """The nuclei of some distributions: a token is in if those before it hold less than ``top_p``.

    Only as much of each distribution is sorted as the widest nucleus needs.
    """
    shares = (logits.float() / temperature).softmax(-1)
    size = shares.shape[-1]
    width = size if top_p == 1 else min(_FIRST, size)
    while True:
        top = shares.topk(width, dim=-1)
        found, tokens = top.values.cpu().double(), top.indices.cpu()
        if width == size or bool((found.sum(-1) >= top_p).all()):
            break
        width = min(8 * width, size)
    before = found.cumsum(-1) - found
    inside = before < top_p if top_p < 1 else found > 0
    counts = inside.sum(-1)
    # Those before are at least as likely, so the nucleus is where ``inside`` begins.
    kept = torch.where(inside, found, 0.0)
    widest = int(counts.max())
    kept = kept[:, :widest] / kept.sum(-1, keepdim=True)
    return Nuclei(tokens[:, :widest], kept, counts)
