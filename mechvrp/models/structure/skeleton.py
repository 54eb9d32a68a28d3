"""The bones of a decoder, from the module tree alone: blocks, embedding, head."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from mechvrp.errors import UnsupportedModelError
from mechvrp.models.linears import is_linear

__all__ = ["Skeleton", "attends", "heads_of", "lists_of_blocks", "skeleton_of"]


@dataclass(frozen=True)
class Skeleton:
    """Paths of what every decoder has, and its sizes.

    Attributes:
        layers: the list of blocks.
        embed: the token embedding.
        n_layers, n_heads, n_kv_heads, d_model: from the config of the text model; 0 for heads where it
            does not say one number for all blocks.
    """

    layers: str
    embed: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int


def attends(name: str, module: nn.Module) -> bool:
    """Whether a module, by its name or its class, is attention with weights of its own."""
    own, kind = name.rpartition(".")[2].lower(), type(module).__name__.lower()
    if kind.endswith(("layer", "block")):  # a whole block may be called after its attention
        kind = ""
    words = f"{own} {kind}"
    if not ("attn" in words or "attention" in words) or "norm" in words:
        return False
    return any(is_linear(part) for part in module.modules())


def lists_of_blocks(root: nn.Module) -> dict[str, nn.ModuleList]:
    """Lists of blocks some of which hold attention, in the order of the tree; not those inside another."""
    found: dict[str, nn.ModuleList] = {}
    for name, module in root.named_modules():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        if any(name.startswith(f"{outer}.") for outer in found):
            continue
        if any(attends(n, m) for n, m in module.named_modules()):
            found[name] = module
    return found


def skeleton_of(model: Any) -> Skeleton:
    """Blocks, embedding and head of a decoder.

    Raises:
        UnsupportedModelError: one is not found, or the model is an encoder and a decoder; with what was
            looked for.
    """
    kind = type(model).__name__
    text = model.config.get_text_config(decoder=True)
    if getattr(model.config, "is_encoder_decoder", False) or getattr(
        text, "is_encoder_decoder", False
    ):
        raise UnsupportedModelError(
            f"{kind} is an encoder and a decoder: its prompt is not in the sequence that predicts the "
            "answer, so prompt positions and blocks do not mean what they mean elsewhere in mechvrp"
        )
    paths = {id(module): name for name, module in model.named_modules()}
    n_layers = _size(text, "num_hidden_layers", "n_layer", "num_layers")
    decoder = model
    while True:
        inner = decoder.get_decoder() if hasattr(decoder, "get_decoder") else decoder
        if inner is None or inner is decoder:
            break
        decoder = inner
    prefix = paths.get(id(decoder), "")
    lists = lists_of_blocks(decoder)
    fitting = [name for name, blocks in lists.items() if len(blocks) == n_layers]
    if not fitting:
        seen = ", ".join(f"{name} ({len(blocks)})" for name, blocks in lists.items()) or "none"
        raise UnsupportedModelError(
            f"no blocks were found in {kind}: looked for a list of {n_layers} modules with attention in "
            f"{type(decoder).__name__} ({prefix or 'the model'}); its lists of such modules: {seen}. "
            "Describe the model by a family of its own (mechvrp.models.register_family)."
        )
    layers = min(fitting, key=lambda name: name.count("."))
    embed = paths.get(id(_given(model, "get_input_embeddings")))
    if embed is None:
        raise UnsupportedModelError(
            f"no token embedding was found in {kind}: get_input_embeddings() gives no module of it"
        )
    if _given(model, "get_output_embeddings") is None:
        raise UnsupportedModelError(
            f"no unembedding was found in {kind}: get_output_embeddings() gives none"
        )
    return Skeleton(
        f"{prefix}.{layers}".strip("."),
        embed,
        n_layers,
        *heads_of(text),
        _size(text, "hidden_size", "n_embd", "d_model"),
    )


def heads_of(config: Any) -> tuple[int, int]:
    """Heads, and key/value heads, of a text model's blocks; 0 where its config has no one number."""
    n_heads = _size(config, "num_attention_heads", "n_head")
    try:
        shared = getattr(config, "num_key_value_heads", None)
    except RuntimeError:  # transformers' own for what differs between blocks
        return n_heads, 0
    return n_heads, shared if isinstance(shared, int) and shared else n_heads


def _given(model: Any, getter: str) -> Any:
    try:
        return getattr(model, getter)()
    except (AttributeError, NotImplementedError):
        return None


def _size(config: Any, *names: str) -> int:
    for name in names:
        try:
            value = getattr(config, name, None)
        except RuntimeError:  # transformers' own for what differs between blocks
            continue
        if isinstance(value, int):
            return value
    return 0


def most_common(found: list[str]) -> str:
    """The path that most blocks share, "" if there is none."""
    counted = Counter(path for path in found if path)
    return counted.most_common(1)[0][0] if counted else ""
