"""The zoo's tokenizer with another family's special tokens and prompt words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechvrp.errors import DataError
from mechvrp.models.zoo.corpus import texts, whole_words
from mechvrp.models.zoo.tokenizer import BOS, EOS, IMAGE, PAD, build_tokenizer, place_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["family_tokenizer"]

# As in the zoo's tokenizer: merges stop by themselves when every word is one token.
_MAX_VOCABULARY = 720


def family_tokenizer(
    prompts: Sequence[str],
    *,
    special: dict[str, str],
    bos: bool,
    named: dict[str, str] | None = None,
    plain: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """The zoo's byte-level BPE, trained on its corpus and on a family's own prompts.

    No token is put in front of a text: the families that use this write theirs into the prompt.

    Args:
        prompts: a family's prompts, so that its wrapping takes few tokens.
        special: the family's names of ``PAD``, ``BOS``, ``EOS`` and ``IMAGE``.
        bos: whether the second of them is a token that begins texts.
        named: further special tokens, by their names on the tokenizer (``video_token``, ...).
        plain: further special tokens without such a name.

    Raises:
        DataError: an answer or question word is not a single token.
    """
    from transformers import PreTrainedTokenizerFast

    named = named or {}
    trained = build_tokenizer(bos=False).train_new_from_iterator(
        [*texts(), *prompts],
        _MAX_VOCABULARY,
        new_special_tokens=[*named.values(), *plain],
        special_tokens_map=special,
        show_progress=False,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer,
        pad_token=special[PAD],
        eos_token=special[EOS],
        **({"bos_token": special[BOS]} if bos else {}),
        extra_special_tokens={"image_token": special[IMAGE], **named},
        padding_side="left",
        add_prefix_space=False,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.add_tokens(place_tokens())
    for word in whole_words():
        if len(tokenizer(word, add_special_tokens=False)["input_ids"]) != 1:
            raise DataError(f"the word {word!r} should be one token")
    return tokenizer
