"""Answers: transformers' ``generate``, greedy unless asked otherwise, and no answers of NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechvrp.errors import InputError, MechVRPError, NumericalError, UnavailableError
from mechvrp.models.batch import Batch
from mechvrp.models.rotations import check_rotations

if TYPE_CHECKING:
    from mechvrp.models.vlm import VLM

__all__ = ["GREEDY", "generated"]

#: What makes transformers' ``generate`` greedy whatever a checkpoint's generation config says:
#: sampling, beams, drafts and penalties are off unless asked for.
GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "prompt_lookup_num_tokens": None,
    "assistant_early_exit": None,
    "dola_layers": None,
    "repetition_penalty": 1.0,
    "return_dict_in_generate": False,
    "no_repeat_ngram_size": 0,
    "temperature": None,
    "top_p": None,
    "top_k": None,
}


class _Finite:
    """A score processor that changes nothing, and raises where the likeliest token would be token 0."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if bool((scores.isnan() | scores.isposinf()).any()):
            raise NumericalError(
                f"logits of {self.name} are NaN or infinite at position {input_ids.shape[1] - 1}, so there is "
                "no answer; a model in float16 may need dtype='bfloat16' or 'float32'"
            )
        return scores


def generated(model: VLM, batch: Batch, *, max_new_tokens: int, **options: Any) -> Any:
    """As ``VLM.generate_output``."""
    if not isinstance(batch, Batch):
        raise InputError(f"expected a batch (model.encode(samples)); got {batch!r:.60}")
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
        raise InputError(f"max_new_tokens must be a whole number; got {max_new_tokens!r:.60}")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1; got {max_new_tokens}")
    check_rotations(model.model, batch.inputs, max_new_tokens)
    # generate counts positions from the mask itself, by the rules of the architecture.
    inputs = {k: v for k, v in batch.inputs.items() if k != "position_ids"}
    config = model.model.generation_config
    given = dict(options)
    answers, beams = config.num_return_sequences or 1, config.num_beams or 1
    if answers > beams and not (beams == 1 and config.do_sample):
        # transformers checks the checkpoint's settings before it looks at ours.
        raise UnavailableError(
            f"the generation config of {model.name} asks for {answers} answers of {beams} beam(s) "
            "(num_return_sequences, num_beams), which transformers refuses: set "
            "model.model.generation_config.num_return_sequences = 1"
        )
    stops = options.get("stop_strings", config.stop_strings)
    if stops and "tokenizer" not in options:
        if model.tokenizer is None:
            raise UnavailableError(
                f"answers of {model.name} end at {stops!r} (stop_strings), which takes a tokenizer to "
                "find, and it was loaded without a processor: give tokenizer=, or stop_strings=None"
            )
        options = {**options, "tokenizer": model.tokenizer}
    options["logits_processor"] = [*(options.get("logits_processor") or ()), _Finite(model.name)]
    model.check_weights()
    with model.turn, torch.no_grad():
        try:
            return model.model.generate(
                **inputs, max_new_tokens=max_new_tokens, **{**GREEDY, **options}
            )
        except MechVRPError:
            raise
        except (ValueError, TypeError, ZeroDivisionError) as error:
            if not given:
                raise
            raise InputError(
                f"transformers' generate does not take these options, {given!r:.200}: {error}"
            ) from error
