"""Logit-lens margins: one token's logit minus another's, at every depth, through the final norm.

The logit lens (nostalgebraist 2020) reads an intermediate residual stream as if it were the last. Without
the final norm its scale grows with depth and the numbers of two layers cannot be compared; so every state
goes through the model's own final norm, unembedding and soft cap, and the last margin is the model's own
logit difference. Computed in float32 whatever the model computes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvrp.errors import InputError, NumericalError, ShapeError, UnavailableError
from mechvrp.models.checks import check_model
from mechvrp.models.linears import weight_of
from mechvrp.patching.answer_pairs import own_pair, right_pair
from mechvrp.tracing.caching import cache, in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = [
    "Margins",
    "Residuals",
    "final_margins",
    "lens_logits",
    "logit_margins",
    "margins_between",
    "mlp_share",
]


@dataclass(frozen=True)
class Residuals:
    """The residual stream at the last prompt position, at every depth.

    Attributes:
        entry: before block 0.
        mid: in every block between attention and MLP.
        post: behind every block.
        without_mid: blocks that have no such place (attention and MLP side by side); their ``mid`` is 0.
    """

    entry: Float[Tensor, "example d_model"]
    mid: Float[Tensor, "layer example d_model"]
    post: Float[Tensor, "layer example d_model"]
    without_mid: tuple[int, ...] = ()


@dataclass(frozen=True)
class Margins:
    """Margins m(h): the logit of ``token`` minus that of ``foil``, read off the residual stream h.

    NaN where an example has no such pair, since its right answer is unknown; and at depths that cannot be
    read of the model (``Observations.gaps`` says why).

    Attributes:
        token, foil: ids; -1 where there is none.
        entry: m before block 0.
        mid: m between attention and MLP of every block.
        post: m behind every block; the last is the model's own.
    """

    token: Int[np.ndarray, " example"]
    foil: Int[np.ndarray, " example"]
    entry: Float[np.ndarray, " example"]
    mid: Float[np.ndarray, "layer example"]
    post: Float[np.ndarray, "layer example"]

    @property
    def pre(self) -> Float[np.ndarray, "layer example"]:
        """m before every block."""
        return np.concatenate([self.entry[None], self.post[:-1]])

    @property
    def attention(self) -> Float[np.ndarray, "layer example"]:
        """What each attention adds: m(mid) - m(pre)."""
        return self.mid - self.pre

    @property
    def mlp(self) -> Float[np.ndarray, "layer example"]:
        """What each MLP adds: m(post) - m(mid). With ``attention`` it sums to ``growth``."""
        return self.post - self.mid

    @property
    def final(self) -> Float[np.ndarray, " example"]:
        """m behind the last block: the model's own logit difference."""
        return self.post[-1]

    @property
    def growth(self) -> Float[np.ndarray, " example"]:
        """m behind the last block minus m before the first."""
        return self.post[-1] - self.entry

    def plot(self, **options: Any) -> Any:
        """Margins by depth as a plotly figure; ``options`` of `mechvrp.plots.logit_lens`."""
        from mechvrp.plots import logit_lens

        return logit_lens(self, **options)


def logit_margins(
    model: VLM,
    samples: Iterable[Sample],
    *,
    of: Literal["own", "right"] = "own",
    batch_size: int = 32,
    progress: bool = False,
) -> Margins:
    """Margins of every example at every depth.

    ``"right"`` is the study's truth margin: the right answer's first token against a foil. It uses the
    label (for a one-token answer the final one is above 0 exactly where the answer is right), so it
    describes how an answer comes about and must not predict whether it is right. ``"own"`` needs no label:
    the model's own first token against its runner-up.

    Args:
        model: from ``mechvrp.load``.
        samples: with answers, for ``"right"``.
        of: whose margin; ``own_pair`` and ``right_pair`` say which tokens.
        batch_size: samples a forward.
        progress: show a bar.

    Raises:
        UnavailableError: a sample has no answer, or one that no token begins.
        NumericalError: NaN or infinity in the residual stream.
    """
    check_model(model)
    if of not in ("own", "right"):
        raise InputError(f"of is 'own' or 'right'; got {of!r}")
    parts = []
    sites: list[Any] = ["blocks.0.hook_resid_pre", "resid_mid", "resid_post", "unembed.hook_out"]
    for chunk in in_batches(samples, batch_size, progress, "margins"):
        acts = cache(model, model.encode(chunk), sites)
        states = Residuals(
            acts["blocks.0.hook_resid_pre"], acts.stack("resid_mid"), acts.stack("resid_post")
        )
        logits = acts["unembed.hook_out"]
        pair = own_pair(model, logits) if of == "own" else right_pair(model, chunk, logits)
        if of == "right" and bool((pair[0] < 0).any()):
            missing = chunk[int((pair[0] < 0).nonzero()[0])]
            raise UnavailableError(f"{missing!r} has no answer, so there is no truth margin")
        parts.append(margins_between(model, states, *pair))
    if not parts:
        raise InputError("no samples to read margins of")
    return join_margins(parts)


def lens_logits(
    model: VLM,
    states: Float[Tensor, "*depth example d_model"],
    tokens: Int[Tensor, "example token"],
) -> Float[Tensor, "*depth example token"]:
    """Logits of some tokens of each example, read off residual streams; float32, on the CPU.

    Raises:
        ShapeError: the states are not of this model, or not of as many examples as ``tokens``.
    """
    check_model(model)
    if states.shape[-1] != model.d_model or states.shape[-2] != len(tokens):
        raise ShapeError(
            f"states must be [..., {len(tokens)}, {model.d_model}]; got {tuple(states.shape)}"
        )
    norm: Any = model.model.get_submodule(model.modules.final_norm)
    head: Any = model.model.get_output_embeddings()
    unembed = weight_of(model, head)
    device = unembed.device
    with torch.no_grad():
        normed = norm(states.to(weight_of(model, norm).device, torch.float32)).to(
            device, torch.float32
        )
        chosen = tokens.to(device)
        logits = torch.einsum("...ed,etd->...et", normed, unembed[chosen].float())
        if getattr(head, "bias", None) is not None:
            logits = logits + head.bias[chosen].float()
    if (cap := model.family.soft_cap(model.model)) is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits.cpu()


def margins_between(model: VLM, states: Residuals, token: Tensor, foil: Tensor) -> Margins:
    """Margins of given token pairs, [example] each; -1 in both means none, and NaN.

    Raises:
        NumericalError: a residual stream is NaN or infinite.
    """
    pairs = torch.stack([token, foil], dim=-1).cpu()
    known = (pairs >= 0).all(-1)

    def margin(state: Tensor) -> np.ndarray:
        logits = lens_logits(model, state, pairs.clamp(min=0))
        found = logits[..., 0] - logits[..., 1]
        if not bool(torch.isfinite(found).all()):
            raise NumericalError(f"the residual stream of {model.name} holds NaN or infinity")
        return torch.where(known, found, torch.nan).double().numpy()

    # In float64, so that differences of margins sum to what they should.
    entry, mid, post = (margin(s) for s in (states.entry, states.mid, states.post))
    mid[list(states.without_mid)] = np.nan
    return Margins(token.cpu().numpy(), foil.cpu().numpy(), entry, mid, post)


def final_margins(
    logits: Float[Tensor, "example vocab"], layers: int, token: Tensor, foil: Tensor
) -> Margins:
    """Margins of which only the last is known: of a model whose logits the lens does not make."""
    pairs = torch.stack([token, foil], dim=-1).cpu()
    known = (pairs >= 0).all(-1)
    chosen = logits.cpu().gather(1, pairs.clamp(min=0)).double()
    post = np.full((layers, len(pairs)), np.nan)
    post[-1] = torch.where(known, chosen[:, 0] - chosen[:, 1], torch.nan).numpy()
    nothing = np.full_like(post, np.nan)
    return Margins(token.cpu().numpy(), foil.cpu().numpy(), nothing[0], nothing, post)


def join_margins(parts: Sequence[Margins]) -> Margins:
    """Margins of several batches as one."""
    names = ("token", "foil", "entry", "mid", "post")
    return Margins(*(np.concatenate([getattr(p, n) for p in parts], axis=-1) for n in names))


def mlp_share(margins: Margins) -> float:
    """The MLPs' share of the mean growth of the margin; attention's is the rest.

    Examples without a margin are left out. Below 0 or above 1 where the two work against each other.

    Raises:
        UnavailableError: the model has no place between attention and MLP, so it is not known who adds what.
        NumericalError: the margin does not grow or shrink, so there is nothing to share.
    """
    known = np.isfinite(margins.final)
    if not np.isfinite(margins.mlp[:, known]).all():
        raise UnavailableError(
            "not every block has a margin between attention and MLP, so what each adds is not known"
        )
    growth = float(np.nanmean(margins.growth)) if np.isfinite(margins.growth).any() else 0.0
    if abs(growth) < 1e-9:
        raise NumericalError(f"the mean margin grows by {growth:.3g}: there is nothing to share")
    return float(np.nanmean(margins.mlp.sum(axis=0)) / growth)
