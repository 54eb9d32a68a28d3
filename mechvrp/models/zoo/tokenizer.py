"""A small, lossless tokenizer: byte-level BPE over the scenes' questions and answers.

All 256 bytes are in its vocabulary, so any text encodes without an unknown token and decodes to
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechvrp.errors import DataError
from mechvrp.models.zoo.corpus import texts, whole_words

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

__all__ = ["BOS", "EOS", "IMAGE", "PAD", "build_tokenizer", "place_tokens"]

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"

# Merges stop by themselves when every word of the corpus is one token; this only bounds them.
_MAX_VOCABULARY = 640


def place_tokens() -> list[AddedToken]:
    """Names of places, one token each though they are two words.

    So prompts align token by token, and what a model keeps about a place can be looked for at one
    position.
    """
    from tokenizers import AddedToken

    return [AddedToken(word, normalized=False) for word in whole_words() if " " in word.strip()]


def build_tokenizer(*, bos: bool = True, extra: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Train the tokenizer.

    Args:
        bos: put ``<s>`` in front of every text, as LLaVA's and PaliGemma's tokenizers do.
        extra: further special tokens of a family.

    Raises:
        DataError: an answer or question word is not a single token (the corpus lost it).
    """
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    special = [PAD, BOS, EOS, IMAGE, *extra]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_MAX_VOCABULARY,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A",
            pair=f"{BOS} $A $B",
            special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
        )
    tokenizer.add_tokens(place_tokens())
    for word in whole_words():
        pieces = tokenizer.encode(word, add_special_tokens=False).tokens
        if len(pieces) != 1:
            raise DataError(f"the word {word!r} became {pieces} and should be one token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        add_prefix_space=False,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
