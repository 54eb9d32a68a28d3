"""What TransformerLens's ``ActivationCache`` asks of its model, of a model that it has no adapter for."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn

from mechvrp.errors import UnavailableError
from mechvrp.models.linears import weight_of

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["StandIn"]


class _Block:
    """A block's output projection, looked up when heads' results are asked for."""

    def __init__(self, model: VLM, layer: int) -> None:
        self._model, self._layer = model, layer

    @property
    def attn(self) -> Any:
        model, layer = self._model, self._layer
        if why := model.family.unavailable("z", layer):
            raise UnavailableError(f"heads of layer {layer} of {model.name}: {why}")
        if model.modules.attn_write != model.modules.attn:
            raise UnavailableError(
                "this family normalises what attention writes (Gemma 2), so the output is no sum of "
                "heads' results; use attn_out"
            )
        path = f"{model.modules.layers}.{layer}.{model.modules.o}"
        w_o = rearrange(
            weight_of(model, model.model.get_submodule(path)).cpu(),
            "d_model (head d_head) -> head d_head d_model",
            head=model.n_heads,
        )
        return SimpleNamespace(W_O=w_o)


class StandIn:
    """Sizes, norms, and directions of the unembedding.

    Of the final norm it is measured what it does: whether it takes the mean out, its scale, which some
    architectures add one to, and that it is one of these two kinds. A constant that it adds has no part.
    """

    def __init__(self, model: VLM) -> None:
        self._config = model.model.config.get_text_config(decoder=True)
        self._norm: nn.Module = model.model.get_submodule(model.modules.final_norm)
        weight_of(model, self._norm)  # an error where it is not in memory
        self._centred, self.scale = self._measured(model.d_model)
        self._unembed: Tensor = weight_of(model, model.model.get_output_embeddings()).cpu()
        self._tokenizer = model.tokenizer
        self.cfg = SimpleNamespace(
            n_layers=model.n_layers,
            d_model=model.d_model,
            n_heads=model.n_heads,
            n_key_value_heads=model.n_kv_heads,
            d_head=model.d_head,
            d_mlp=model.d_mlp,
            d_vocab=model.d_vocab,
            attn_only=False,
            normalization_type="LNPre" if self._centred else "RMSPre",
            final_rms=not self._centred,
            eps=self._eps,
            positional_embedding_type="rotary",
            parallel_attn_mlp=False,
            device="cpu",
            dtype=torch.float32,
        )
        self.blocks = [_Block(model, layer) for layer in range(model.n_layers)]

    @cached_property
    def _eps(self) -> float:
        """Of the final norm: its own, under one of its names, or the config's."""
        for name in ("variance_epsilon", "eps", "epsilon"):
            if isinstance(found := getattr(self._norm, name, None), float):
                return found
        return float(self._config.rms_norm_eps)

    def _measured(self, d_model: int) -> tuple[bool, Tensor]:
        """Whether the norm takes the mean out, and what it multiplies by, [d_model]."""
        weight: Any = self._norm.weight
        x = torch.randn(2, d_model, generator=torch.Generator().manual_seed(0))
        given = (0.5 + x.sign() * (1 + x.abs())).to(weight)  # no value near 0, nor a mean of 0
        x = given.float().cpu()
        with torch.no_grad():
            # What is odd in x: a constant that is added drops out.
            out = ((self._norm(given) - self._norm(-given)) / 2).float().cpu()
        for centred in (False, True):
            own = x - x.mean(-1, keepdim=True) if centred else x
            scales = out / (own / (own.pow(2).mean(-1, keepdim=True) + self._eps).sqrt())
            if torch.allclose(scales[0], scales[1], rtol=0.02, atol=1e-3):
                return centred, scales.mean(0)
        raise UnavailableError(
            f"the final norm ({type(self._norm).__name__}) divides by neither a root mean square nor a "
            "standard deviation, so there is nothing that TransformerLens's decompositions could use"
        )

    def centred(self, x: Tensor) -> Tensor:
        """What the final norm divides: a LayerNorm takes the mean out before."""
        return x - x.mean(-1, keepdim=True) if self._centred else x

    def norm_scale(self, x: Tensor) -> Tensor:
        """What it divides by."""
        return (self.centred(x).pow(2).mean(-1, keepdim=True) + self.cfg.eps).sqrt()

    def ln_final(self, x: Tensor) -> Tensor:
        """The normalisation alone: the norm's scale is folded into the unembedding."""
        return self.centred(x) / self.norm_scale(x)

    def to_single_token(self, text: str) -> int:
        if self._tokenizer is None:
            raise UnavailableError("this model has no tokenizer; give token ids")
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise UnavailableError(f"{text!r} is {len(ids)} tokens ({ids}); give one token's id")
        return int(ids[0])

    def tokens_to_residual_directions(self, tokens: Any) -> Tensor:
        """The unembedding of each token, final norm's scale folded in, [..., d_model]."""
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        return self._unembed[torch.as_tensor(tokens)].float() * self.scale
