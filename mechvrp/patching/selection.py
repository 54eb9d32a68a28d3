"""Which tokens of a site an intervention edits, whatever the site's layout.

Every site's value is a list of tokens in some layout: ``[batch, pos, ...]``, ``[batch, head, query,
key]``, or the concatenated image tokens of a batch. Here it becomes ``[token, ...]`` and back, and each
token gets a name that does not depend on padding, batch or order of execution.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechvrp.models.tokens import on_image
from mechvrp.tracing.sites import IMAGE_KEYS

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions
    from mechvrp.tracing.sites import Site

__all__ = ["Selected", "flat", "select", "unflat"]


@dataclass(frozen=True)
class Selected:
    """Tokens of a site, in the order of the site's own list of tokens.

    Attributes:
        index: place in ``flat(site, value)``, [token].
        sample: which row of the batch it belongs to, [token].
        position: in the padded sequence, -1 in the vision tower, [token].
        place: position counted from the end of the prompt (-1 is the last prompt token), or, in the
            vision tower, from the first token of the sample's first image, [token].
        patch: of an image token its image, row and column and its grid's rows and columns; -1 for
            other tokens and in the tower, [token, 5].
        length: tokens of the sample's prompt, [token].
    """

    index: Int[Tensor, " token"]
    sample: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    place: Int[Tensor, " token"]
    patch: Int[Tensor, "token 5"]
    length: Int[Tensor, " token"]

    def __len__(self) -> int:
        return len(self.index)

    def where(self, mask: Bool[Tensor, " token"]) -> Selected:
        """Those of the tokens."""
        parts = (getattr(self, f.name) for f in fields(self))
        return Selected(*(part[mask.to(part.device)] for part in parts))


def flat(site: Site, value: Tensor) -> Tensor:
    """A site's value as tokens, ``[token, ...]``; a view where the layout allows it."""
    if site.component == "pattern":
        return value.transpose(1, 2).flatten(0, 1)
    if site.component == "projected":
        return value
    return value if value.ndim == 2 else value.flatten(0, 1)


def unflat(site: Site, tokens: Tensor, like: Tensor) -> Tensor:
    """The inverse of ``flat``, in the layout of ``like``."""
    if site.component == "pattern":
        batch, _, query, _ = like.shape
        return tokens.unflatten(0, (batch, query)).transpose(1, 2)
    return tokens.view(like.shape)


def select(site: Site, positions: Positions, value: Tensor, model: VLM, batch: Batch) -> Selected:
    """The tokens that ``positions`` mean at a site whose value is ``value``."""
    if site.component == "vision_resid_post":
        return _in_tower(value, model, batch)
    if site.component in IMAGE_KEYS:
        return _of_keys(value)
    rows, places, features = [], [], []
    if site.component == "projected" and positions == "all":
        positions = "image"
    for i, (chosen, tokens) in enumerate(
        zip(batch.tokens.resolve(positions), batch.tokens.images, strict=True)
    ):
        rows.append(torch.full_like(chosen, i))
        places.append(chosen)
        if on_image(positions):
            features.append(tokens.feature[torch.isin(tokens.position, chosen)])
    row, position = torch.cat(rows), torch.cat(places)
    length = batch.tokens.length
    index = torch.cat(features) if site.component == "projected" else row * length + position
    return Selected(
        index.to(value.device),
        row,
        position,
        position - length,
        batch.tokens.all_patches[row, position],
        batch.tokens.attention_mask.sum(-1)[row],
    )


def _of_keys(value: Tensor) -> Selected:
    """All keys of the image, of each sample in turn."""
    samples, keys = value.shape[:2]
    example = torch.arange(samples).repeat_interleave(keys)
    none = torch.full_like(example, -1)
    place, patch = torch.arange(keys).repeat(samples), torch.full((len(example), 5), -1)
    index = torch.arange(len(example), device=value.device)
    return Selected(index, example, none, place, patch, torch.full_like(example, keys))


def _in_tower(value: Tensor, model: VLM, batch: Batch) -> Selected:
    """All tokens of the tower; images come in the order of the samples."""
    sizes = model.family.vision_rows(model.model, dict(batch.inputs))
    each = 1 if value.ndim == 2 else value.shape[1]
    counts = torch.tensor(sizes) * each
    owner = torch.repeat_interleave(
        torch.arange(len(batch)), torch.tensor([len(t.shapes) for t in batch.tokens.images])
    )
    image = torch.repeat_interleave(torch.arange(len(counts)), counts)
    # Counted over all images of a sample, so that no two of its tokens share a name.
    example = owner[image]
    first = torch.tensor([int((example < e).sum()) for e in range(len(batch))])
    none = torch.full_like(example, -1)
    patch = torch.full((len(example), 5), -1)
    place = torch.arange(len(example)) - first[example]
    lengths = batch.tokens.attention_mask.sum(-1)[example]
    index = torch.arange(len(example), device=value.device)
    return Selected(index, example, none, place, patch, lengths)
