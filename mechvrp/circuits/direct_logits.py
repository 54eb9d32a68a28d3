"""Direct logit attribution: an answer's logit difference as a sum over everything that was written.

Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits"); Wang et al. 2023 (arXiv 2211.00593,
section 3): the residual stream at the last position is a sum of the embedding and of what each head and MLP
wrote, and the logits are linear in it once the final norm's scale is held at its value. *Direct*, since what
a head does through later layers is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvrp.errors import NumericalError, UnavailableError
from mechvrp.models.linears import weight_of

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["DirectLogits", "Written", "attribute_logits", "frozen_norm", "head_directions"]

#: How far a sum may be from what it should sum to, as a share of the sizes that enter it: float32, and less.
_SLACK = {torch.float32: 1e-4, torch.float64: 1e-4}
_LOOSE = 3e-2


@dataclass(frozen=True)
class Written:
    """What is in the residual stream at the last prompt position, in float32.

    Attributes:
        start: before block 0, with whatever scale the family gives its embeddings.
        heads: each head's output z.
        attention: what attention added, bias and a norm behind it (Gemma 2) included.
        mlp: what the MLPs added.
        end: behind the last block.
    """

    start: Float[Tensor, "example d_model"]
    heads: Float[Tensor, "example layer head d_head"]
    attention: Float[Tensor, "example layer d_model"]
    mlp: Float[Tensor, "example layer d_model"]
    end: Float[Tensor, "example d_model"]


@dataclass(frozen=True)
class DirectLogits:
    """Parts of a logit difference, in float64; they sum to it (before a soft cap of the logits).

    Attributes:
        heads: ``[example, layer, head]``.
        attention_bias: ``[example, layer]``, of the output projection's bias; 0 where it has none.
        mlps: ``[example, layer]``.
        embedding: ``[example]``, of what stood at the last position before block 0.
        unembedding_bias: ``[example]``, difference of the two tokens' biases; 0 where there are none.
        difference: ``[example]``, the logit difference itself, from the final residual stream.
    """

    heads: Float[Tensor, "example layer head"]
    attention_bias: Float[Tensor, "example layer"]
    mlps: Float[Tensor, "example layer"]
    embedding: Float[Tensor, " example"]
    unembedding_bias: Float[Tensor, " example"]
    difference: Float[Tensor, " example"]

    @property
    def total(self) -> Float[Tensor, " example"]:
        """Sum of all parts."""
        return (
            self.heads.sum((1, 2))
            + (self.attention_bias + self.mlps).sum(1)
            + self.embedding
            + self.unembedding_bias
        )

    @staticmethod
    def join(parts: list[DirectLogits]) -> DirectLogits:
        """Those of several batches as one."""
        names = [field.name for field in fields(DirectLogits)]
        return DirectLogits(*(torch.cat([getattr(p, name) for p in parts]) for name in names))


def frozen_norm(norm: Any, states: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    """What a root-mean-square norm multiplies each state by, its scale held: ``norm(x) = factor * x``.

    Read from the norm itself, since Gemma adds one to its weight and Llama does not, and their epsilons
    differ.

    Raises:
        UnavailableError: the norm is not of that kind (it subtracts a mean, or adds a bias).
    """
    weight = norm.weight
    with torch.no_grad():
        x = states.to(weight.device, torch.float32)
        normed = norm(x).float()
        ones = norm(
            torch.ones_like(weight, dtype=torch.float32)
        ).float()  # the gain, times a constant
    scaled = x * ones
    size = scaled.square().sum(-1, keepdim=True)
    # A zero state has no direction, and stays zero.
    factor = (normed * scaled).sum(-1, keepdim=True) / size.clamp(min=torch.finfo(size.dtype).tiny)
    error = (normed - factor * scaled).norm(dim=-1)
    error = error / normed.norm(dim=-1).clamp(min=torch.finfo(error.dtype).tiny)
    worst = float(error.max())
    if not worst <= (1e-4 if weight.dtype == torch.float32 else _LOOSE):
        raise UnavailableError(
            f"{type(norm).__name__} does not scale its input (it is {worst:.2g} off): direct logit "
            "attribution holds a root-mean-square norm's scale still, and knows no other norm"
        )
    return (factor * ones).cpu()


def head_directions(
    model: VLM,
    layer: int,
    z: Float[Tensor, "example head d_head"],
    direction: Float[Tensor, "example d_model"],
) -> tuple[Float[Tensor, "example head d_head"], Float[Tensor, " example"]]:
    """A direction of the residual stream as each head's z has it, and what the projection's bias adds along it.

    A head's z goes through its slice of the output projection. Where a norm stands behind the projection
    (Gemma 2) its scale is held at its value for all heads together.
    """
    block = f"{model.modules.layers}.{layer}."
    project: Any = model.model.get_submodule(block + model.modules.o)
    weight = weight_of(model, project).float().cpu()
    constant = torch.zeros(model.d_model)
    if getattr(project, "bias", None) is not None:
        constant = project.bias.detach().float().cpu()
    if model.modules.attn_write != model.modules.attn:
        norm = model.model.get_submodule(block + model.modules.attn_write)
        direction = direction * frozen_norm(norm, z.flatten(1) @ weight.T + constant)
    heads = weight.unflatten(1, (model.n_heads, model.d_head))
    return torch.einsum("em,mhd->ehd", direction, heads), direction @ constant


def attribute_logits(
    model: VLM,
    written: Written,
    token: Int[Tensor, " example"],
    foil: Int[Tensor, " example"],
) -> tuple[DirectLogits, Float[Tensor, "example layer head d_head"]]:
    """The parts of each example's logit difference, and the directions of z that heads' parts are read along.

    Args:
        model: from ``mechvrp.load``.
        written: at the last position.
        token, foil: the difference is of their logits.

    Raises:
        UnavailableError: the final norm is no root-mean-square norm.
        NumericalError: the parts do not sum to the difference, so something is written that is not known.
    """
    norm: Any = model.model.get_submodule(model.modules.final_norm)
    head: Any = model.model.get_output_embeddings()
    rows = weight_of(model, head)
    weight_of(model, norm)  # an error where it is not in memory
    unembed = (rows[token.to(rows.device)].float() - rows[foil.to(rows.device)].float()).cpu()
    direction = frozen_norm(norm, written.end) * unembed
    bias = getattr(head, "bias", None)
    offset = torch.zeros(len(unembed))
    if bias is not None:
        offset = (bias[token.to(bias.device)] - bias[foil.to(bias.device)]).detach().float().cpu()
    directions, biases = [], []
    for layer in range(model.n_layers):
        inside, constant = head_directions(model, layer, written.heads[:, layer], direction)
        directions.append(inside)
        biases.append(constant)
    ways = torch.stack(directions, dim=1)
    found = DirectLogits(
        heads=(written.heads * ways).sum(-1).double(),
        attention_bias=torch.stack(biases, dim=1).double(),
        mlps=torch.einsum("elm,em->el", written.mlp, direction).double(),
        embedding=(written.start * direction).sum(-1).double(),
        unembedding_bias=offset.double(),
        difference=(written.end * direction).sum(-1).double() + offset.double(),
    )
    size = 1 + found.heads.abs().sum((1, 2)) + found.mlps.abs().sum(1) + found.embedding.abs()
    error = (found.total - found.difference).abs() / size
    if float(error.max()) > _SLACK.get(model.dtype, _LOOSE):
        i = int(error.argmax())
        raise NumericalError(
            f"the parts of {model.name}'s logit difference sum to {float(found.total[i]):.4g} in example "
            f"{i}, and it is {float(found.difference[i]):.4g}: something is written to the residual stream "
            "that is neither attention nor MLP"
        )
    return found, ways
