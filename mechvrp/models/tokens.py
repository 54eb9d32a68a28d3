"""``TokenMap``: which position of an encoded batch is what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechvrp.errors import DataError, SiteError
from mechvrp.models.image_tokens import ImageTokens as ImageTokens
from mechvrp.models.image_tokens import place_images
from mechvrp.models.positions import KEYWORDS as KEYWORDS
from mechvrp.models.positions import Each as Each
from mechvrp.models.positions import Positions as Positions
from mechvrp.models.positions import integers as integers
from mechvrp.models.positions import on_image as on_image
from mechvrp.models.spelling import spelled

if TYPE_CHECKING:
    from mechvrp.models.families import Grid

__all__ = ["KEYWORDS", "Each", "ImageTokens", "Positions", "TokenMap", "integers", "on_image"]


class TokenMap:
    """Positions of an encoded batch, counted in the padded sequence (negative counts from its end).

    Args:
        input_ids: [batch, pos].
        attention_mask: [batch, pos], 0 on padding.
        image_token_id: the placeholder that stands for an image token, ``None`` if none does.
        grids: the layout of every image, in the order of the inputs.
        tokenizer: to find words; ``None`` where the inputs were encoded elsewhere.
        questions: the question of each sample and the prompt's text behind it (instruction and
            template), ``None`` likewise.
        no_image: why image tokens are not in the sequence, where they are not.

    Raises:
        DataError: the image tokens of the ids do not fit the grids, or a row is padded on the right.
    """

    def __init__(
        self,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        *,
        image_token_id: int | None,
        grids: Sequence[Grid],
        tokenizer: Any = None,
        questions: Sequence[tuple[str, str]] | None = None,
        no_image: str = "",
    ) -> None:
        self.input_ids = input_ids.cpu()
        self.attention_mask = attention_mask.cpu().bool()
        if not bool(self.attention_mask[:, -1].all()):
            row = int((~self.attention_mask[:, -1]).nonzero()[0])
            raise DataError(
                f"sample {row} is padded on the right; pad on the left, so that the last position is "
                "every sample's last prompt token"
            )
        self._tokenizer = tokenizer
        self._questions = questions
        self._no_image = no_image
        self.images: tuple[ImageTokens, ...] = place_images(self.input_ids, image_token_id, grids)

    def __len__(self) -> int:
        """Number of samples."""
        return self.input_ids.shape[0]

    @property
    def length(self) -> int:
        """Number of positions, padding included."""
        return self.input_ids.shape[1]

    @cached_property
    def last(self) -> Int[Tensor, " batch"]:
        """The last prompt token of each sample: the position that predicts the answer."""
        return torch.full((len(self),), self.length - 1)

    def patch(self, sample: int, row: int, col: int, *, image: int = 0) -> int:
        """The position of the image token at (row, col) of a sample's image."""
        row, col, image = integers("a patch", (row, col, image))
        tokens = self.images[self._known(sample)]
        self._need_image()
        if not 0 <= image < len(tokens.shapes):
            raise SiteError(f"sample {sample} has {len(tokens.shapes)} image(s); asked for {image}")
        rows, cols = tokens.shapes[image]
        if not rows * cols:
            raise SiteError(
                f"the {len(tokens)} image tokens of sample {sample} have no places on a grid: use "
                "positions='image', or numbers"
            )
        if not (0 <= row < rows and 0 <= col < cols):
            raise SiteError(
                f"patch ({row}, {col}) is outside the {rows} x {cols} grid of sample {sample}: "
                f"rows 0 to {rows - 1}, columns 0 to {cols - 1}"
            )
        here = (tokens.row == row) & (tokens.col == col) & (tokens.image == image)
        return int(tokens.position[here][0])

    def grid_of(self, sample: int, position: int) -> tuple[int, int] | None:
        """(row, col) of the image token at a position, ``None`` if it is not one on a grid."""
        (position,) = integers("a position", position)
        tokens = self.images[self._known(sample)]
        here = (tokens.position == position % self.length).nonzero().flatten()
        if not len(here) or tokens.row[here[0]] < 0:
            return None
        return int(tokens.row[here[0]]), int(tokens.col[here[0]])

    def patches(self, sample: int) -> Int[Tensor, "pos 5"]:
        """Of each position its image, row and column and its grid's rows and columns, -1 off images."""
        tokens = self.images[self._known(sample)]
        found = torch.full((self.length, 5), -1)
        sizes = torch.tensor(tokens.shapes, dtype=torch.long).reshape(-1, 2)[tokens.image]
        columns = (tokens.image, tokens.row, tokens.col, sizes[:, 0], sizes[:, 1])
        found[tokens.position] = torch.stack(columns, dim=1)
        return found

    @cached_property
    def all_patches(self) -> Int[Tensor, "batch pos 5"]:
        """``patches`` of every sample."""
        return torch.stack([self.patches(i) for i in range(len(self))])

    # ---- text -------------------------------------------------------------------------------

    def strings(self, sample: int) -> list[str]:
        """The text of every token of a sample, padding included (``""`` there)."""
        text, spans = self._spelled[self._known(sample)]
        return [text[a:b] for a, b in spans]

    @cached_property
    def question(self) -> tuple[Int[Tensor, " token"], ...]:
        """The positions of each sample's question, template and instruction left out."""
        if self._questions is None:
            raise SiteError(
                "the question's positions are unknown: the inputs were encoded elsewhere. Encode "
                "samples with model.encode, or give explicit positions."
            )
        found = []
        for sample, (question, tail) in enumerate(self._questions):
            text, _ = self._spelled[sample]
            # With what follows it: an instruction may repeat the question's words.
            start = text.rfind(question.strip() + tail)
            if start < 0:
                start = text.rfind(question.strip())
            if start < 0:
                raise DataError(
                    f"the question of sample {sample} is not in its tokens: {question!r} "
                    f"against {text!r}"
                )
            found.append(self._covering(sample, start, start + len(question.strip())))
        return tuple(found)

    def find(self, word: str, *, missing: str = "raise") -> tuple[Int[Tensor, " token"], ...]:
        """The positions of a word or phrase in each sample's question (case ignored).

        Every whole-word occurrence counts. A sample without the word raises ``SiteError``, or gives
        no positions with ``missing="empty"``.
        """
        if not isinstance(word, str) or not word.strip():
            raise SiteError(f"expected a word of the question, got {word!r:.60}")
        found = []
        for sample, question in enumerate(self.question):
            text, spans = self._spelled[sample]
            start, end = spans[question[0]][0], spans[question[-1]][1]
            pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
            hits = [
                self._covering(sample, start + m.start(), start + m.end())
                for m in re.finditer(pattern, text[start:end], re.IGNORECASE)
            ]
            if not hits and missing == "raise":
                raise SiteError(
                    f"sample {sample} has no word {word!r} in its question {text[start:end]!r}; "
                    f"the keywords are {', '.join(KEYWORDS)}. Use "
                    "batch.tokens.find(word, missing='empty') where it may be absent."
                )
            found.append(torch.cat(hits) if hits else torch.zeros(0, dtype=torch.long))
        return tuple(found)

    def _covering(self, sample: int, start: int, end: int) -> Int[Tensor, " token"]:
        spans = self._spelled[sample][1]
        inside = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
        return torch.tensor(inside, dtype=torch.long)

    @cached_property
    def _spelled(self) -> list[tuple[str, list[tuple[int, int]]]]:
        """Each sample's text without padding and image tokens, and every position's span in it."""
        if self._tokenizer is None:
            raise SiteError(
                "this batch has no tokenizer, so words cannot be found in it; give the processor "
                "to mechvrp.load(model, processor=...), or use explicit positions"
            )
        shown = self.mask("text").tolist()
        return [
            spelled(self._tokenizer, ids, kept)
            for ids, kept in zip(self.input_ids.tolist(), shown, strict=True)
        ]

    # ---- selecting --------------------------------------------------------------------------

    def resolve(self, positions: Positions) -> tuple[Int[Tensor, " chosen"], ...]:
        """Positions by name, for each sample, ascending and without repeats.

        ``"last"`` (the last prompt token), ``"image"``, ``"question"``, ``"text"`` (all but image
        tokens), ``"all"`` (all but padding); any other string is a word of the question
        (``"word:image"`` for a word that is also a keyword); a number or a list of numbers counts in
        the padded sequence, negative from its end; a list of (row, col) pairs means image patches;
        ``Each`` a position of each sample's own.

        Raises:
            SiteError: no such word, position or patch, with the valid range.
        """
        if isinstance(positions, str):
            return self._named(positions)
        if isinstance(positions, Each):
            return positions.resolve(self.attention_mask)
        if not isinstance(positions, Sequence):
            positions = integers("positions", positions)
        bare = isinstance(positions, tuple) and len(positions) == 2
        if bare and not any(isinstance(p, tuple) for p in positions):  # type: ignore[union-attr]
            raise SiteError(
                f"{positions!r} could mean two positions or one patch: write {list(positions)!r} or "
                f"[{positions!r}]"
            )
        if len(positions) > 2 * self.length:
            raise SiteError(
                f"{len(positions):,} positions were given; this batch has {self.length} of them"
            )
        items = list(positions)
        if not items:
            raise SiteError("no positions were given")
        if all(isinstance(p, tuple) for p in items):
            if any(len(p) != 2 for p in items):  # type: ignore[arg-type]
                raise SiteError(f"a patch is a (row, column) pair; got {items!r:.60}")
            return tuple(
                torch.tensor(sorted({self.patch(i, *p) for p in items}))  # type: ignore[misc]
                for i in range(len(self))
            )
        numbers = integers("positions", items)
        for p in numbers:
            if not -self.length <= p < self.length:
                raise SiteError(
                    f"position {p} is out of range: this batch has {self.length} positions, "
                    f"{-self.length} to {self.length - 1}"
                )
        chosen = torch.tensor(sorted({p % self.length for p in numbers}))
        for i in range(len(self)):
            padding = chosen[~self.attention_mask[i, chosen]]
            if len(padding):
                raise SiteError(
                    f"position {int(padding[0])} is padding in sample {i}, whose prompt starts at "
                    f"{int(self.attention_mask[i].long().argmax())}; count from the end (-1 is the "
                    "last prompt token) or use a keyword"
                )
        return tuple(chosen for _ in range(len(self)))

    def _known(self, sample: int) -> int:
        (number,) = integers("a sample", sample)
        if not 0 <= number < len(self):
            raise SiteError(f"this batch has samples 0 to {len(self) - 1}; got {sample!r:.60}")
        return number

    def _need_image(self) -> None:
        if self._no_image:
            raise SiteError(f"this model has no image positions: {self._no_image}")

    def _named(self, name: str) -> tuple[Int[Tensor, " chosen"], ...]:
        if name == "last":
            return tuple(p[None] for p in self.last)
        if name == "image":
            self._need_image()
            return tuple(tokens.position for tokens in self.images)
        if name == "question":
            return self.question
        if name == "all":
            return tuple(row.nonzero().flatten() for row in self.attention_mask)
        if name == "text":
            keep = self.attention_mask.clone()
            for i, tokens in enumerate(self.images):
                keep[i, tokens.position] = False
            return tuple(row.nonzero().flatten() for row in keep)
        return self.find(name.removeprefix("word:"))

    def mask(self, positions: Positions) -> Bool[Tensor, "batch pos"]:
        """``resolve``, as a mask over the padded sequence."""
        mask = torch.zeros_like(self.attention_mask)
        for i, chosen in enumerate(self.resolve(positions)):
            mask[i, chosen] = True
        return mask
