"""Where each site lives in a running model: read and write it through the nnsight envoy.

Every function here works inside a trace only. Values are the model's own tensors, or views of them,
so in-place edits (``t.z[1][:, -1] = 0``) take effect. ``pattern`` under SDPA is the exception: it is made
for the reader, and ``Trace`` writes it back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mechvrp.errors import ShapeError, UnavailableError
from mechvrp.models.placing import heads_put_together, heads_taken_apart, is_sharded
from mechvrp.models.structure.operations import ATTENTION, residual_operation
from mechvrp.tracing.attention import Inputs, inputs_of, replaced_output
from mechvrp.tracing.sites import COMPONENTS, IMAGE_KEYS, Site

if TYPE_CHECKING:
    from torch import Tensor

    from mechvrp.models import VLM, Batch

__all__ = [
    "attention_of",
    "attention_rows",
    "check_available",
    "check_value",
    "expected_shape",
    "has_resid_mid",
    "has_single_queries",
    "is_made",
    "module_of",
    "read",
    "write",
]


def check_available(model: VLM, site: Site) -> None:
    """Raise ``UnavailableError``, with the remedy, for a site this model cannot give as loaded."""
    if why := model.family.unavailable(site.component, site.layer):
        raise UnavailableError(
            f"{model.name} has no {site}: {why}. mechvrp.models.check_family(model) lists what it has."
        )
    if site.component == "embed" and is_sharded(model.model):
        # Each process looks up some of the words, and what it leaves to others is put in once only.
        raise UnavailableError(
            f"{site} cannot be read or edited while the vocabulary is divided between processes (tensor "
            "parallelism): use resid_pre of layer 0, or load the model with device_map="
        )
    if site.component == "pattern" and model.attn_implementation not in ("eager", "sdpa"):
        raise UnavailableError(
            f"{site} does not exist under attn={model.attn_implementation!r}, which never forms "
            "attention weights; load the model with mechvrp.load(..., attn='sdpa') or 'eager'"
        )


def expected_shape(model: VLM, batch: Batch, site: Site) -> tuple[int | None, ...]:
    """The shape of a site; ``None`` where it is the tower's own affair."""
    n, length = len(batch), batch.tokens.length
    features = sum(len(tokens) for tokens in batch.tokens.images)
    shared = ("k", "v", *IMAGE_KEYS)
    heads = model.n_kv_heads if site.component in shared else model.n_heads
    sizes: dict[str, int | None] = {
        "batch": n,
        "pos": length,
        "d_model": model.d_model,
        "head": heads,
        "d_head": model.d_head,
        "d_mlp": model.d_mlp,
        "query": length,
        "key": length,
        "feature": features,
        "d_vocab": model.d_vocab,
    }
    return tuple(sizes.get(dim) for dim in site.kind.dims)


def check_value(model: VLM, batch: Batch, site: Site, value: Tensor) -> None:
    """Raise ``ShapeError`` unless ``value`` can be the whole of a site."""
    if value.dtype != model.dtype:
        raise ShapeError(
            f"{site} was assigned a tensor of {value.dtype}; {model.name} computes in {model.dtype}"
        )
    expected = expected_shape(model, batch, site)
    if site.component in IMAGE_KEYS and value.ndim == len(
        expected
    ):  # how many keys is known when it is reached
        expected = tuple(
            n if size is None else size for size, n in zip(expected, value.shape, strict=True)
        )
    elif None in expected and site.component not in IMAGE_KEYS:
        return  # vision_resid_post: compared with the model's own tensor when it is reached
    if tuple(value.shape) != expected:
        named = ", ".join(f"{d} {s}" for d, s in zip(site.kind.dims, expected, strict=True))
        raise ShapeError(
            f"{site} was assigned a tensor of shape {tuple(value.shape)}; expected "
            f"{expected} ({named})"
        )


def _module(model: VLM, path: str) -> Any:
    envoy = model.envoy
    for part in path.split("."):
        envoy = envoy[int(part)] if part.isdigit() else getattr(envoy, part)
    return envoy


def _block(model: VLM, site: Site, path: str = "") -> Any:
    layers = model.modules.layers
    return _module(model, f"{layers}.{site.layer}.{path}" if path else f"{layers}.{site.layer}")


def _resid_mid(model: VLM, site: Site) -> Any:
    """The assignment of the residual stream between attention and MLP.

    Setting the next norm's input would leave the model's own ``residual`` as it was; nnsight serves
    the assignment itself.
    """
    source = _block(model, site).source
    names = list(source.names)
    before = residual_operation(names)
    if not before:
        raise UnavailableError(
            f"{site}: the residual stream between attention and MLP was not found in the forward of "
            f"{type(_block(model, site)._module).__name__}, whose operations are {names}"
        )
    return getattr(source, before)


def has_resid_mid(model: VLM, layer: int) -> bool:
    """Whether the residual stream between a block's attention and MLP can be read and given.

    Blocks whose attention and MLP both read the block's input have none.
    """
    if model.family.unavailable("resid_mid", layer):
        return False
    try:
        _resid_mid(model, Site("resid_mid", layer))
    except UnavailableError:
        return False
    config = model.model.config.get_text_config(decoder=True)
    return not getattr(config, "use_parallel_residual", False)


def has_single_queries(model: VLM, layer: int) -> bool:
    """Whether a block's attention can be run for some queries alone: they are made by a module of their own.

    What attends under other implementations than SDPA and eager takes other masks.
    """
    if any(model.family.unavailable(component, layer) for component in ("q", "z", "pattern")):
        return False
    try:
        names = list(_block(model, Site("q", layer), model.modules.attn).source.names)
        for part in (model.modules.q, model.modules.o):
            _block(model, Site("q", layer), part)
    except AttributeError:
        return False
    return ATTENTION in names and model.attn_implementation in ("eager", "sdpa")


def is_made(model: VLM, site: Site) -> bool:
    """Whether a site's value is made for the reader, so that edits in place must be written back."""
    if site.component != "pattern":
        return False
    return model.attn_implementation != "eager" or is_sharded(model.model)


def attention_of(model: VLM, site: Site) -> Any:
    """The call of the layer's attention function."""
    return getattr(_block(model, site, model.modules.attn).source, ATTENTION)


def module_of(model: VLM, site: Site) -> Any:
    """The module that makes a layer's ``q``, ``k`` or ``v``."""
    return _block(model, site, getattr(model.modules, site.component))


def _image_keys(model: VLM, site: Site) -> Any:
    """The module that makes the image's keys or values for a block of cross attention."""
    paths = model.family.image_keys(site.layer or 0)
    if paths is None:
        raise UnavailableError(f"{model.name} has no {site}: the block attends to the prompt alone")
    return _block(model, site, paths[list(IMAGE_KEYS).index(site.component)])


def attention_rows(model: VLM, site: Site, sample: Tensor, position: Tensor) -> Tensor:
    """``pattern`` of some queries only, [row, head, key]; to read, not to edit."""
    check_available(model, site)
    _arrive(model, site)
    if model.attn_implementation == "eager":
        pattern = read(model, site)
        return pattern[sample.to(pattern.device), :, position.to(pattern.device)]
    return _inputs(model, site).rows(sample, position)


def _inputs(model: VLM, site: Site) -> Inputs:
    """What a layer's attention function is called with, of all heads."""
    found = inputs_of(attention_of(model, site), site)
    if not is_sharded(model.model):
        return found
    query, key, value = (
        heads_put_together(model, part, 1) for part in (found.query, found.key, found.value)
    )
    return replace(found, query=query, key=key, value=value)


def _read_pattern(model: VLM, site: Site) -> Tensor:
    """The attention weights as they are applied to the values (after softmax and dropout)."""
    if model.attn_implementation == "eager":
        own = attention_of(model, site).source.nn_functional_dropout_0.output
        return heads_put_together(model, own, 1)
    return _inputs(model, site).weights()


def _write_pattern(model: VLM, site: Site, value: Tensor) -> None:
    attention = attention_of(model, site)
    if model.attn_implementation == "eager":
        attention.source.nn_functional_dropout_0.output = heads_taken_apart(model, value, 1)
    else:
        mixed, weights = replaced_output(_inputs(model, site), value)
        attention.output = heads_taken_apart(model, mixed, 2), weights


#: The last step of a block that is, or is followed by, an operation of the block's own forward.
_INSIDE = COMPONENTS["resid_mid"].step


def _arrive(model: VLM, site: Site) -> None:
    """See to it that operations inside a block can be reached, before the model gets there."""
    inside = site.kind.where == "block" and site.kind.step <= _INSIDE
    if inside and site.component not in IMAGE_KEYS:
        model.instrument(site.layer or 0)


def _heads(model: VLM, flat: Tensor) -> Tensor:
    return flat.unflatten(-1, (-1, model.d_head))


def _writer(model: VLM, site: Site) -> str:
    """The module of a block whose output, or its first part, is the site; "" for the block itself."""
    if site.component == "resid_post":
        return ""
    return model.modules.attn_write if site.component == "attn_out" else model.modules.mlp_write


def read(model: VLM, site: Site) -> Tensor:
    """The value of a checked site, waiting until the model reaches it.

    ``image_k`` and ``image_v`` come in the model's own rows, whatever the batch: [..., head, d_head].
    """
    _arrive(model, site)
    m = model.modules
    match site.component:
        case "embed":
            return _module(model, m.embed).output
        case "vision_resid_post":
            return _module(model, f"{m.vision_layers}.{site.layer}").output
        case "projected":
            output = _module(model, m.projector).output
            if field := model.family.projected_field:
                output = getattr(output, field)
            return output.view(-1, model.d_model)
        case "resid_pre":
            return _block(model, site).input
        case "q" | "k" | "v":
            return _heads(model, module_of(model, site).output)
        case "image_k" | "image_v":
            return _heads(model, _image_keys(model, site).output)
        case "pattern":
            return _read_pattern(model, site)
        case "z":
            return _heads(model, _block(model, site, m.o).input)
        case "attn_out" | "mlp_out" | "resid_post":
            output = _block(model, site, _writer(model, site)).output
            return output[0] if isinstance(output, tuple) else output
        case "resid_mid":
            return _resid_mid(model, site).output
        case "neurons":
            return _block(model, site, m.neurons).input
        case _:
            return model.envoy.output.logits


def write(model: VLM, site: Site, value: Tensor) -> None:
    """Replace the value of a checked site."""
    _arrive(model, site)
    m = model.modules
    match site.component:
        case "embed":
            _module(model, m.embed).output = value
        case "vision_resid_post":
            layer = _module(model, f"{m.vision_layers}.{site.layer}")
            found = layer.output
            if value.shape != found.shape:
                raise ShapeError(
                    f"{site} was assigned a tensor of shape {tuple(value.shape)}; expected "
                    f"{tuple(found.shape)}"
                )
            layer.output = value
        case "projected":
            projector = _module(model, m.projector)
            output = projector.output
            if field := model.family.projected_field:
                fields = {**output, field: value.view(getattr(output, field).shape)}
                projector.output = type(output)(**fields)
            else:
                projector.output = value.view(output.shape)
        case "resid_pre":
            _block(model, site).input = value
        case "q" | "k" | "v":
            module_of(model, site).output = value.flatten(-2)
        case "image_k" | "image_v":
            module = _image_keys(model, site)
            output = module.output
            if value.numel() != output.numel():
                raise ShapeError(
                    f"{site} was assigned a tensor of shape {tuple(value.shape)}; expected [batch, key, head, "
                    f"d_head] of {output.numel()} numbers in all"
                )
            module.output = value.reshape(output.shape)
        case "pattern":
            _write_pattern(model, site, value)
        case "z":
            _block(model, site, m.o).input = value.flatten(-2)
        case "attn_out" | "mlp_out" | "resid_post":
            module = _block(model, site, _writer(model, site))
            output = module.output
            module.output = (value, *output[1:]) if isinstance(output, tuple) else value
        case "resid_mid":
            _resid_mid(model, site).output = value
        case "neurons":
            _block(model, site, m.neurons).input = value
        case _:
            output = model.envoy.output
            model.envoy.output = type(output)(**{**output, "logits": value})
