"""Operations of a module's own forward, by the names that nnsight gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["AGAIN", "ATTENTION", "residual_operation", "strange_options"]

#: The call of transformers' attention function inside an attention module.
ATTENTION = "attention_interface_1"
#: A second call of it: heads then are of two of its results, and one pattern is not theirs.
AGAIN = "attention_interface_2"

#: What an attention function may be told that takes no part in its weights, or that is known how.
_KNOWN = (
    "position_ids",
    "use_cache",
    "cache_position",
    "output_attentions",
    "position_embeddings",
    # What some models hand down to every module, of which attention takes nothing.
    "logits_to_keep",
    "output_hidden_states",
    "output_router_logits",
    "return_dict",
    "scaling",
    "dropout",
    "is_causal",
    "sliding_window",
)


def strange_options(options: Mapping[str, Any]) -> list[str]:
    """What else an attention function is told: a soft cap, attention sinks, biases."""
    return sorted(k for k, given in options.items() if given is not None and k not in _KNOWN)


def residual_operation(names: Sequence[str]) -> str:
    """The assignment of the residual stream between attention and MLP in a block's forward, or "".

    It is the one just before ``residual`` is bound the second time.
    """
    names = list(names)
    bound = names.index("residual_1") if "residual_1" in names else 0
    before = names[bound - 1] if bound else ""
    return before if before.startswith("hidden_states_") else ""
