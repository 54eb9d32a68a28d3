"""Operations of a module's own forward, by the names that nnsight gives them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ATTENTION", "residual_operation"]

#: The call of transformers' attention function inside an attention module.
ATTENTION = "attention_interface_1"


def residual_operation(names: Sequence[str]) -> str:
    """The assignment of the residual stream between attention and MLP in a block's forward, or "".

    It is the one just before ``residual`` is bound the second time.
    """
    names = list(names)
    bound = names.index("residual_1") if "residual_1" in names else 0
    before = names[bound - 1] if bound else ""
    return before if before.startswith("hidden_states_") else ""
