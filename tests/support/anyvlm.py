"""Untrained models of many image-text-to-text classes, tiny, with inputs made by hand.

Each case gives a config, and for some samples the prompt's ids in front of, at and behind the image, and
the tensors that stand for the images. Sizes are chosen so that mistakes show: d_head is not
d_model / n_heads where a class allows it, grids are not square where they need not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

VOCAB = 128
#: The placeholder of an image token, the padding, and others that classes put around images.
IMAGE, PAD, BEFORE, AFTER = 3, 0, 7, 8

#: A prompt's ids and what else belongs to one sample, e.g. its ``pixel_values``.
Encoded = tuple[list[int], dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """One class.

    Attributes:
        name: its ``model_type``, or more where a class has variants.
        config: makes its config.
        encode: of a seed the ids that stand for one image and the tensors of that image.
        by_token: inputs that have a value for each position: name and value by id.
        stacked: inputs that get a new axis of samples, instead of being joined along their first.
        options: of the model's making, e.g. ``attn_implementation``.
        grid: of the image of a seed, (rows, cols) of each grid; ``None``: tokens without places.
        attention: what is to be measured.
        missing: sites that the class does not have.
        scale: what weights are multiplied by.
        split: whether positions can be run apart.
        decoder, tower, projector, writes: where its parts are, for plain hooks: the text model, the
            list of the tower's blocks, the module with the image features, the modules whose outputs
            are added to the residual stream and the norm that reads it in between.
    """

    name: str
    config: Callable[[], Any]
    encode: Callable[[int], Encoded]
    by_token: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    grid: Callable[[int], list[tuple[int, int]]] | None = None
    attention: str = "causal"
    missing: tuple[str, ...] = ()
    scale: float = 4.0
    split: bool = True
    decoder: str = "model.language_model"
    tower: str = "model.vision_tower.encoder.layers"
    projector: str = "model.multi_modal_projector"
    writes: tuple[str, str, str] = ("self_attn", "post_attention_layernorm", "mlp")
    parts: dict[str, str] = field(default_factory=dict)

    def model(self, attn: str | None = None, seed: int = 0) -> Any:
        """A fresh Hugging Face model: no forward has run."""
        from transformers import AutoModelForImageTextToText

        torch.manual_seed(seed)
        chosen = {} if attn is None else {"attn_implementation": attn}
        model = AutoModelForImageTextToText.from_config(self.config(), **chosen)
        with torch.no_grad():  # the default scale leaves such small models all but linear
            for parameter in model.parameters():
                if not bool(parameter.any()):  # gates and projections that begin at nothing
                    parameter.normal_(0, 0.1)
                if parameter.ndim > 1:
                    parameter.mul_(self.scale)
        return model.eval()

    def inputs(self, samples: Sequence[int] = (0, 1, 2)) -> dict[str, Tensor]:
        """Left-padded inputs of samples with questions of different lengths, by seed."""
        rows, parts = [], []
        for seed in samples:
            image, tensors = self.encode(seed)
            generator = torch.Generator().manual_seed(seed)
            question = torch.randint(20, VOCAB - 20, (4 + 3 * (seed % 3),), generator=generator)
            rows.append(torch.tensor([1, 11 + seed, *image, *question.tolist()]))
            parts.append(tensors)
        length = max(map(len, rows))
        ids = torch.stack(
            [torch.nn.functional.pad(r, (length - len(r), 0), value=PAD) for r in rows]
        )
        mask = torch.stack([torch.arange(length) >= length - len(r) for r in rows]).long()
        found: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask}
        for name, value in self.by_token.items():
            found[name] = value(ids)
        for name in parts[0]:
            found[name] = _joined([part[name] for part in parts])
        return found

    def place(self, component: str, layer: int | None) -> tuple[str, str]:
        """(module path, "in" | "out") of a component, written by hand."""
        block = f"{self.decoder}.layers.{layer}"
        parts = {
            "attn": "self_attn", "q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj",
            "neurons": "mlp.down_proj", "embed": f"{self.decoder}.embed_tokens", **self.parts,
        }  # fmt: skip
        attn, (write, middle, mlp) = f"{block}.{parts['attn']}", self.writes
        return {
            "embed": (parts["embed"], "out"),
            "vision_resid_post": (f"{self.tower}.{layer}", "out"),
            "projected": (self.projector, "out"),
            "resid_pre": (block, "in"),
            "q": (f"{attn}.{parts['q']}", "out"),
            "k": (f"{attn}.{parts['k']}", "out"),
            "v": (f"{attn}.{parts['v']}", "out"),
            "z": (f"{attn}.{parts['o']}", "in"),
            "attn_out": (f"{block}.{write}", "out"),
            "resid_mid": (f"{block}.{middle}", "in"),
            "neurons": (f"{block}.{parts['neurons']}", "in"),
            "mlp_out": (f"{block}.{mlp}", "out"),
            "resid_post": (block, "out"),
            "logits": ("", "out"),
        }[component]


def _joined(parts: list[Tensor]) -> Tensor:
    """Along the first axis, tiles padded with zeros to as many as the most."""
    if parts[0].ndim >= 4 and len({p.shape[1] for p in parts}) > 1:
        most = max(p.shape[1] for p in parts)
        parts = [
            torch.cat([p, p.new_zeros(len(p), most - p.shape[1], *p.shape[2:])], dim=1)
            for p in parts
        ]
    return torch.cat(parts)


def pixels(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(100 + seed))


def text(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": PAD,
        "max_position_embeddings": 256,
        **more,
    }


def tower(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
        **more,
    }


def images(ids: Tensor) -> Tensor:
    return (ids == IMAGE).long()
