"""What a folder or a hub id must hold to be loaded; what it lacks is said in words, with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechvrp.errors import InputError

__all__ = ["check_sizes", "check_weights", "processor_of"]

#: Sizes in configs that are divided by, and the least that each can be.
_LEAST = {
    "hidden_size": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "num_hidden_layers": 0,
    "patch_size": 1,
}


def check_sizes(config: Mapping[str, Any], where: str = "config.json") -> None:
    """Refuse a config, as it is read, with a size that no model can have.

    Raises:
        InputError: with the size, what was given and what was expected.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_sizes(value, f"{where}: {name}")
        least = _LEAST.get(name)
        if least is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and one < least:
                raise InputError(
                    f"{where} says {name} = {value}; expected whole numbers from {least} on"
                )


def check_weights(folder: Path, name: str) -> None:
    """Refuse a local folder whose weights are in no safetensors.

    Raises:
        InputError: with how to convert them.
    """
    others = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if others and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{name!r} holds its weights in {others[0]}, and only safetensors are read: the other is a pickle, "
            "which may run any code when it is opened. If you trust where it is from, convert it once: "
            f"transformers.AutoModelForImageTextToText.from_pretrained({name!r}, use_safetensors=False)"
            f".save_pretrained({name!r})"
        )


def processor_of(source: str, name: str, options: Mapping[str, Any]) -> Any:
    """The processor beside the weights.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(source, **options)
    except Exception as error:  # of a damaged or missing file, nearly anything
        raise InputError(
            f"could not load {name!r}: no processor could be read beside its weights ({type(error).__name__}: "
            f"{str(error)[:1000]}). Give one, mechvrp.load({name!r}, processor=...), that of the model it was "
            "made from (transformers.AutoProcessor.from_pretrained), or put that one into its folder "
            "(processor.save_pretrained)"
        ) from error
