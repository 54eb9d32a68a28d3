"""``load``: one way in, for embedded names, local folders, hub ids and models in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mechvrp.errors import InputError, UnsupportedModelError
from mechvrp.files import path_of
from mechvrp.models import zoo
from mechvrp.models.sources import check_sizes, check_weights, processor_of

__all__ = ["EmbeddedModel", "embedded_models", "load"]


class EmbeddedModel(NamedTuple):
    """A checkpoint that comes with the package."""

    name: str
    path: Path


def embedded_models() -> tuple[EmbeddedModel, ...]:
    """The checkpoints that come with the package, by name."""
    return tuple(EmbeddedModel(name, zoo.folder(name)) for name in zoo.names())


def load(
    name_or_path_or_hf_model: Any,
    *,
    processor: Any = None,
    device: str = "auto",
    dtype: str = "auto",
    attn: str | None = None,
    device_map: Any = None,
    distributed_config: Any = None,
    dispatch: bool = True,
    revision: str | None = None,
    trust_remote_code: bool = False,
    probe: Mapping[str, Any] | None = None,
) -> Any:
    """Load a vision-language model as a ``VLM``.

    Args:
        name_or_path_or_hf_model: an embedded name (``"tiny-llava"``), a local folder, a hub id
            (``"llava-hf/llava-1.5-7b-hf"``), or a Hugging Face model already in memory.
        processor: the processor; by default the one beside the weights. A model in memory may come
            without one: it can be traced, but not encode samples.
        device: ``"auto"`` (CUDA, else Apple's MPS, else CPU) or a torch device; a model in memory
            stays where it is under ``"auto"``.
        dtype: ``"auto"`` (the checkpoint's own) or a torch dtype by name, e.g. ``"bfloat16"``.
        attn: attention implementation, ``"sdpa"`` or ``"eager"``. By default SDPA, where the model has
            it; a model in memory keeps its own unless another is asked for.
        device_map: as in transformers, for models larger than one device; excludes ``device``.
        distributed_config: as in transformers, for tensor parallelism: every process of a ``torchrun`` loads
            its part of each layer, and runs the same script. Sites are whole in all of them.
        dispatch: whether to load the weights; with False a hub id gives a model for remote runs alone, for
            which only the config and the processor are read.
        revision, trust_remote_code: as in transformers, for hub ids.
        probe: encoded inputs of two samples or more with prompts of different lengths, padded on the
            left. A model that no family describes is run on them (some twenty forwards) to find its sites
            and verify them; by default its processor makes them.

    Weights are read from safetensors alone, whole: a checkpoint that has others (``pytorch_model.bin`` is a
    pickle) is saved anew with transformers' ``save_pretrained`` first.

    Raises:
        InputError: no such embedded name, folder or hub id, a damaged or incomplete one, or arguments that
            exclude each other.
        UnsupportedModelError: no family describes the architecture, and its structure could not be
            looked at or has no decoder blocks.
    """
    import torch
    from torch import nn

    from mechvrp.models.families import family_of
    from mechvrp.models.vlm import VLM

    if isinstance(name_or_path_or_hf_model, VLM):
        raise InputError(
            "this is a VLM already; load takes a name, a folder or a Hugging Face model"
        )
    if processor is not None and not callable(processor):
        raise InputError(f"processor is a Hugging Face processor; got {processor!r:.60}")
    for what, given in (("attn", attn), ("revision", revision)):
        if given is not None and not isinstance(given, str):
            raise InputError(f"{what} is text; got {given!r:.60}")
    if probe is not None and not isinstance(probe, Mapping):
        raise InputError(f"probe holds encoded inputs by name; got {probe!r:.60}")
    if isinstance(name_or_path_or_hf_model, nn.Module):
        model: Any = name_or_path_or_hf_model
        if hasattr(model, "get_base_model") or type(model).__name__ == "PeftMixedModel":
            raise UnsupportedModelError(
                f"{type(model).__name__} is a wrapper of PEFT around a model: give model.get_base_model(), in "
                "whose layers LoRA adapters are and stay, or model.merge_and_unload(); learnt prompts and "
                "prefixes, which are in neither, are not supported"
            )
        if not dispatch or any(x is not None for x in (device_map, distributed_config, revision)):
            raise InputError(
                "device_map, distributed_config, dispatch and revision are for loading by name; this model is "
                "loaded"
            )
        if attn is not None and attn != model.config._attn_implementation:
            family = family_of(model.config)
            model.set_attn_implementation(
                family.attention_for(model.config, attn) if family else attn
            )
        if device != "auto":
            model = model.to(_checked(device))
        if dtype != "auto":
            model = model.to(_dtype(dtype))
        return VLM(model, processor, probe=probe)

    if not isinstance(name_or_path_or_hf_model, str | os.PathLike):
        raise InputError(
            "load takes a name, a folder or a Hugging Face model; got "
            f"{name_or_path_or_hf_model!r:.60} ({type(name_or_path_or_hf_model).__name__})"
        )
    name = str(path_of(name_or_path_or_hf_model, "a model's name"))
    if not isinstance(trust_remote_code, bool):
        raise InputError(f"trust_remote_code is True or False; got {trust_remote_code!r:.60}")
    place = _device() if device == "auto" else _checked(device)
    embedded = {entry.name: entry.path for entry in embedded_models()}
    source = str(embedded.get(name, name))
    if device_map is not None and device != "auto":
        raise InputError(f"give device ({device!r}) or device_map ({device_map!r}), not both")
    if distributed_config is not None and (device_map is not None or device != "auto"):
        raise InputError(
            "distributed_config puts each process's part on its own device: give neither device nor device_map"
        )
    if not dispatch and (
        device_map is not None or distributed_config is not None or device != "auto"
    ):
        raise InputError("dispatch=False loads no weights, so there is nothing to put on a device")
    local = "/" not in name or name.startswith((".", "/", "~")) or name.count("/") > 1
    if name not in embedded and local and not Path(name).exists():
        raise InputError(
            f"no model named {name!r}: it is neither embedded ({', '.join(embedded) or 'none'}), nor "
            "a local folder, nor a hub id of the form owner/name"
        )

    if (Path(source) / "adapter_config.json").is_file():
        raise InputError(
            f"{name!r} holds adapters of PEFT: load their model with transformers, and give "
            "PeftModel.from_pretrained(model, folder).get_base_model() and a processor"
        )

    from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

    weights_dtype = "auto" if dtype == "auto" else _dtype(dtype)
    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        if dispatch:
            check_weights(Path(source), name)
        check_sizes(PreTrainedConfig.get_config_dict(source, **hub)[0])
        # The config alone first: what its family wants of transformers is known before a download.
        config = AutoConfig.from_pretrained(source, **hub)
        family = family_of(config)
        if not dispatch and family is None:
            raise UnsupportedModelError(
                f"{name} ({config.model_type}) is of no family written by hand, and others are found by "
                "running them: load it with its weights"
            )
        # Of a model that no family describes it is not known whether it has SDPA: transformers chooses.
        chosen = family.attention_for(config, attn or "sdpa") if family else attn
        if dispatch:
            auto: Any = AutoModelForImageTextToText  # whose stubs know no loading info
            model, loaded = auto.from_pretrained(
                source,
                dtype=weights_dtype,
                attn_implementation=chosen,
                device_map=device_map,
                distributed_config=distributed_config,
                use_safetensors=True,  # other weights are pickles
                output_loading_info=True,
                **hub,
            )
            if loaded["missing_keys"]:  # transformers would leave them at random
                raise InputError(
                    f"could not load {name!r}: the weights lack {sorted(loaded['missing_keys'])[:3]}"
                )
        else:
            own = {} if weights_dtype == "auto" else {"dtype": weights_dtype}
            with torch.device("meta"):
                model = AutoModelForImageTextToText.from_config(
                    config, attn_implementation=chosen, trust_remote_code=trust_remote_code, **own
                )
        if processor is None:
            processor = processor_of(source, name, hub)
    except (MemoryError, torch.OutOfMemoryError, InputError, UnsupportedModelError):
        raise
    # Of a damaged folder transformers raises nearly anything: what its readers of JSON, of tokenizers and
    # of safetensors raise, and PyTorch's own of weights that do not fit.
    except Exception as error:
        raise InputError(
            f"could not load {name!r} ({type(error).__name__}): {str(error)[:2000]}"
        ) from error
    if dispatch and device_map is None and distributed_config is None:
        model = model.to(place)
    known: dict[str, Any] = {"dispatch": dispatch}
    if name not in embedded and not local:
        known |= {"repo_id": name, **hub}
    return VLM(model, processor, name=name, probe=probe, hub=known)


def _checked(device: Any) -> Any:
    """The device, if a tensor can be put there.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    try:
        if device is None:
            raise TypeError("it is None")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch raises each of them
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise InputError(f"no device {device!r} here; there are {', '.join(here)}") from error
    return device


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(name: Any) -> Any:
    import torch

    if isinstance(name, torch.dtype):
        return name
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise InputError(
            f"no torch dtype {name!r}; e.g. 'float32', 'bfloat16', 'float16', or 'auto'"
        )
    return found
