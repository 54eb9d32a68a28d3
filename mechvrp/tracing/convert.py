"""Cached activations as an xarray ``Dataset`` or a TransformerLens ``ActivationCache``."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn

from mechvrp.errors import InputError, ShapeError, SiteError, UnavailableError
from mechvrp.models.placing import weight_of
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    import xarray
    from transformer_lens import ActivationCache

    from mechvrp.models import VLM, Batch
    from mechvrp.tracing.activations import Activations, Rows

__all__ = ["from_transformer_lens", "to_transformer_lens", "to_xarray"]


def _dense(value: Tensor, rows: Rows, fill: float) -> Tensor:
    """[row, ...] to [example, position, ...], shorter examples padded on the left."""
    longest = int(rows.counts.max())
    dense = value.new_full((len(rows.counts), longest, *value.shape[1:]), fill)
    column = torch.cat([torch.arange(longest - n, longest) for n in rows.counts.tolist()])
    dense[rows.example, column] = value
    return dense


def to_xarray(acts: Activations) -> xarray.Dataset:
    import xarray as xr

    data: dict[str, Any] = {}
    coords: dict[str, Any] = {"example": range(acts.n_examples)}
    for site in acts.sites:
        rows = acts.rows(site)
        value = acts.flat(site).float()  # xarray has no bfloat16
        prompt = site.component not in ("projected", "vision_resid_post")
        axis = "position" if prompt else site.component
        dims: tuple[str, ...]
        if site.component == "pattern":
            dims = ("head", "key")
        elif site.component == "projected":
            dims = ("d_model",)
        elif site.component == "vision_resid_post":
            dims = ("patch", "d_vision") if value.ndim == 3 else ("d_vision",)
        else:
            dims = site.kind.dims[2:]
        # Sizes of one axis name must agree within a dataset; key and value heads can be fewer.
        dims = tuple("kv_head" if site.component in "kv" and d == "head" else d for d in dims)
        data[str(site)] = (("example", axis, *dims), _dense(value, rows, float("nan")).numpy())
        for name in ("position", "row", "col"):
            label = _dense(getattr(rows, name), rows, -1 if name != "position" else 0)
            suffix = "" if prompt else f"_{site.component}"
            if name == "position" and not prompt:
                continue
            coords[f"token_{name}{suffix}"] = (("example", axis), label.numpy())
    from mechvrp._version import __version__

    attrs = {**acts.info, "positions": str(acts.positions), "mechvrp": __version__}
    return xr.Dataset(data, coords=coords, attrs=attrs)


class _NormedBlock:
    """A block whose attention output is normalised before it is added: no head writes linearly."""

    @property
    def attn(self) -> Any:
        raise UnavailableError(
            "this family normalises what attention writes (Gemma 2), so the output is no sum of "
            "heads' results; use attn_out"
        )


def _epsilon(norm: nn.Module, config: Any) -> float:
    """Of the final norm: its own, under one of its names, or the config's."""
    for name in ("variance_epsilon", "eps", "epsilon"):
        if isinstance(found := getattr(norm, name, None), float):
            return found
    return float(config.rms_norm_eps)


class _StandIn:
    """What ``ActivationCache`` asks of its model: sizes, norms, and directions of the unembedding."""

    def __init__(self, model: VLM) -> None:
        config = model.model.config.get_text_config(decoder=True)
        self._norm: nn.Module = model.model.get_submodule(model.modules.final_norm)
        weight_of(model, self._norm)  # an error where it is not in memory
        self._centred = isinstance(self._norm, nn.LayerNorm)
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
            eps=_epsilon(self._norm, config),
            positional_embedding_type="rotary",
            parallel_attn_mlp=False,
            device="cpu",
            dtype=torch.float32,
        )
        self.blocks = [self._block(model, layer) for layer in range(model.n_layers)]

    @staticmethod
    def _block(model: VLM, layer: int) -> Any:
        path = f"{model.modules.layers}.{layer}.{model.modules.o}"
        if model.modules.attn_write != model.modules.attn:
            return _NormedBlock()
        w_o = rearrange(
            weight_of(model, model.model.get_submodule(path)).cpu(),
            "d_model (head d_head) -> head d_head d_model",
            head=model.n_heads,
        )
        return SimpleNamespace(attn=SimpleNamespace(W_O=w_o))

    @property
    def scale(self) -> Tensor:
        """What the final norm multiplies the normalised residual stream by, [d_model].

        Read from the norm itself, since Gemma adds one to its weight and Llama does not.
        """
        weight: Any = self._norm.weight
        if self._centred:
            return weight.detach().cpu().float()
        ones = torch.ones(self.cfg.d_model, dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            return (self._norm(ones) * (1 + self.cfg.eps) ** 0.5).detach().cpu().float()

    def ln_final(self, x: Tensor) -> Tensor:
        """The normalisation alone: the norm's scale is folded into the unembedding."""
        return self.centred(x) / self.norm_scale(x)

    def centred(self, x: Tensor) -> Tensor:
        """What the final norm divides: a LayerNorm takes the mean out before."""
        return x - x.mean(-1, keepdim=True) if self._centred else x

    def norm_scale(self, x: Tensor) -> Tensor:
        """What it divides by."""
        return (self.centred(x).pow(2).mean(-1, keepdim=True) + self.cfg.eps).sqrt()

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


def to_transformer_lens(acts: Activations, model: VLM) -> ActivationCache:
    from transformer_lens import ActivationCache

    stand_in = _StandIn(model)
    cached: dict[str, Tensor] = {}
    for site in acts.sites:
        if site.component in ("projected", "vision_resid_post"):
            cached[str(site)] = acts.flat(site)
            continue
        value = _dense(acts.flat(site), acts.rows(site), 0.0)
        if site.component == "pattern":
            value = value.transpose(1, 2)  # [example, head, query, key]
        cached[str(site)] = value
    entry, embed = Site("resid_pre", 0), Site("embed")
    if {entry, embed} <= set(acts.sites):
        cached["hook_pos_embed"] = cached[str(entry)] - cached[str(embed)]
    final = Site("resid_post", model.n_layers - 1)
    if final in acts.sites:
        cached["ln_final.hook_scale"] = stand_in.norm_scale(cached[str(final)].float())
    return ActivationCache(cached, stand_in)


def from_transformer_lens(cache: Mapping[str, Tensor], model: VLM, batch: Batch) -> Activations:
    """What TransformerLens's ``run_with_cache`` has cached, as activations of all positions.

    Args:
        cache: an ``ActivationCache``, or a dictionary by hook name, of a run of this batch. Hooks that are
            no site here (norms' scales, scores before the softmax) are left out.
        model, batch: what was run; rows that are padding are left out.

    Raises:
        ShapeError: a value is not of this model and batch.
        InputError: no hook is a site.
    """
    from mechvrp.tracing.access import expected_shape
    from mechvrp.tracing.activations import Activations, _kind
    from mechvrp.tracing.caching import _rows

    names = {"hook_unembed": "unembed.hook_out"}  # a bridge's name of the logits
    mask = batch.tokens.attention_mask
    values: dict[Site, Tensor] = {}
    for name, value in cache.items():
        try:
            site = Site.parse(names.get(name, name)).check(model)
        except SiteError:
            continue
        if site.component in ("projected", "vision_resid_post"):
            continue  # a bridge has them as its own modules do
        expected = expected_shape(model, batch, site)
        if tuple(value.shape) != expected:
            raise ShapeError(
                f"{name} has shape {tuple(value.shape)}; this model and batch have {expected} "
                f"({', '.join(site.kind.dims)})"
            )
        whole = value.transpose(1, 2) if site.component == "pattern" else value
        values[site] = whole.detach().cpu()[mask]
    if not values:
        raise InputError(f"none of {len(cache)} hooks is a site of {model.name}")
    values = dict(sorted(values.items(), key=lambda pair: pair[0].order))
    info = {
        "model": model.name,
        "dtype": str(next(iter(values.values())).dtype).removeprefix("torch."),
    }
    keys = tuple(batch.keys) if batch.samples is not None else None
    return Activations(
        values,
        {_kind(s): _rows(model, batch, _kind(s), "all", 0) for s in values},
        "all",
        info,
        keys,
    )
