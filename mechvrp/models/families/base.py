"""What mechvrp must know of an architecture, and nothing more.

A family says *where* things are (module paths of the transformers 5 classes), *how* a prompt is
written, *which* positions the image tokens take, and *which way* attention looks over the prompt.
Everything else is read from the model's config and weights.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from mechvrp.errors import DataError, InputError, UnsupportedModelError
from mechvrp.models.chat import render_chat
from mechvrp.models.rotations import check_rotations

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

__all__ = ["Family", "Grid", "Modules"]


class Grid(NamedTuple):
    """The layout of one image's tokens: ``extra`` tokens without a place, then rows x cols in raster order.

    ``ends`` tokens without a place follow each row. An image whose tokens have no places at all is
    ``Grid(0, 0, extra=n)``.
    """

    rows: int
    cols: int
    extra: int = 0
    ends: int = 0

    @property
    def tokens(self) -> int:
        return self.extra + self.rows * (self.cols + self.ends)


@dataclass(frozen=True)
class Modules:
    """Module paths. Those in the first group start at the model, the others at one decoder layer.

    ``attn_write`` and ``mlp_write`` name the module whose output is *added to the residual stream*:
    the attention and the MLP themselves, or a norm behind them (Gemma 2).
    """

    layers: str = "model.language_model.layers"
    embed: str = "model.language_model.embed_tokens"
    final_norm: str = "model.language_model.norm"
    vision_layers: str = "model.vision_tower.encoder.layers"
    projector: str = "model.multi_modal_projector"

    attn: str = "self_attn"
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    o: str = "self_attn.o_proj"
    neurons: str = "mlp.down_proj"
    attn_write: str = "self_attn"
    mlp_write: str = "mlp"

    GLOBAL: ClassVar[tuple[str, ...]] = (
        "layers",
        "embed",
        "final_norm",
        "vision_layers",
        "projector",
    )


class Family(ABC):
    """One VLM architecture. Subclass, then ``mechvrp.models.register_family(MyFamily())``.

    Attributes:
        name: what people call it.
        model_types: values of ``config.model_type`` it describes.
        attention: how the prompt attends to itself: ``"causal"``, ``"prefix"`` where all prompt
            positions see one another, or ``"image"`` where those of an image do.
        required_inputs: keys a batch must hold beside ``input_ids`` and ``attention_mask``; without
            them the model computes something else, often silently.
        projected_field: field of the projector's output that holds the image features, or ``""``
            where the output is the tensor itself.
        forgets_image: whether blocks need nothing of the image but what stands in the residual stream,
            so that a run from a block on can leave the pixels out.
        measured: whether its facts were measured on the model, so that a sweep's shortcuts are tried on
            it, too, before they are used.
        features_as: how the model takes image features that are known already (``mm_encoder_outputs``):
            ``"whole"``, in one tensor, or in ``"parts"``, which it joins; ``""``: not, or not as they come
            from the projector.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    attention: ClassVar[Literal["causal", "prefix", "image"]] = "causal"
    required_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    projected_field: ClassVar[str] = ""
    forgets_image: ClassVar[bool] = True
    measured: ClassVar[bool] = False
    features_as: ClassVar[Literal["", "whole", "parts"]] = ""

    def describes(self, config: Any) -> bool:
        """Whether it knows models of this config, whose ``model_type`` is one of its own.

        Those that it does not know are looked at by their structure.
        """
        return True

    def modules(self, model: nn.Module) -> Modules:
        """Where the modules of this model are."""
        return Modules()

    def check(self, model: nn.Module) -> Modules:
        """``modules``, each looked up (raises ``UnsupportedModelError`` naming what is not there)."""
        modules = self.modules(model)
        paths = [getattr(modules, name) for name in Modules.GLOBAL]
        paths += [
            f"{modules.layers}.0.{getattr(modules, f.name)}"
            for f in fields(modules)
            if f.name not in Modules.GLOBAL
        ]
        for path in paths:
            try:
                model.get_submodule(path)
            except AttributeError as error:
                raise UnsupportedModelError(
                    f"{type(model).__name__} was taken for the {self.name} family, but it has no "
                    f"module {path!r}. Register a family that describes it with "
                    "mechvrp.models.register_family."
                ) from error
        return modules

    def unavailable(self, component: str, layer: int | None = None) -> str:
        """Why the models have no such site (a component of ``mechvrp.tracing``), "" if they have it."""
        if component in ("image_k", "image_v"):
            return "image tokens are among the prompt's, and no block attends to other keys"
        return ""

    def image_keys(self, layer: int) -> tuple[str, str] | None:
        """In a block of cross attention, the modules of the image's keys and values; ``None`` elsewhere."""
        return None

    def no_image(self) -> str:
        """Why image tokens are not in the sequence, "" if they are."""
        return ""

    def soft_cap(self, model: Any) -> float | None:
        """What the logits are capped by, softly; ``None``: they are what the unembedding gives."""
        config = model.config.get_text_config(decoder=True)
        return getattr(config, "final_logit_softcapping", None)

    def inseparable(self) -> str:
        """Why the positions of a prompt cannot be run apart from those behind them, "" if they can."""
        if self.attention == "causal":
            return ""
        whose = "of a prompt" if self.attention == "prefix" else "of an image"
        return f"in {self.name} all positions {whose} see one another"

    def attention_for(self, config: Any, attn: str) -> Any:
        """What to pass to transformers as ``attn_implementation`` when ``attn`` was asked for."""
        return attn

    @abstractmethod
    def prompt(self, processor: Any, question: str, *, task: str, instruction: str | None) -> str:
        """The text given to the processor for one question about one image.

        ``instruction`` is text appended to the question; ``None`` means the family's official
        prompt for the task, ``""`` the bare question. Tasks are those of ``mechvrp.data``: a
        question of ``"multiple-choice"`` already lists its options, one of ``"open-ended"`` wants
        sentences, any other a word or a phrase.
        """

    def tokenize(
        self, processor: Any, prompts: Sequence[str], images: Sequence[Image]
    ) -> dict[str, Tensor]:
        """Run the processor: left padding, one image a prompt."""
        encoded = processor(
            text=list(prompts),
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return dict(encoded)

    def prepare(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete encoded inputs: explicit position ids, so that padding cannot shift positions."""
        self._require(inputs, *self.required_inputs)
        if "position_ids" not in inputs:
            inputs["position_ids"] = self.position_ids(model, inputs)
        check_rotations(model, inputs)
        return inputs

    def position_ids(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Positions counted from each row's first real token, [batch, pos]."""
        return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)

    def image_token_id(self, model: Any) -> int | None:
        """The placeholder id that image features are written over, ``None`` if they are not in it."""
        return int(model.config.image_token_id)

    def takes_features(self, model: Any) -> bool:
        """Whether the model can be given image features instead of pixels."""
        known = inspect.signature(type(model).forward).parameters
        return bool(self.features_as) and "mm_encoder_outputs" in known

    def encoded(self, features: Tensor) -> dict[str, Any]:
        """What the model is given instead of ``pixel_values`` where it takes features.

        Args:
            features: image tokens of the whole batch as they leave the projector, [feature, d_model].
        """
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        given: Any = features if self.features_as == "whole" else (features,)
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=given)}}

    @abstractmethod
    def grids(self, model: Any, inputs: dict[str, Tensor]) -> list[Grid]:
        """The token layout of every image, in the order of the inputs."""

    def vision_rows(self, model: Any, inputs: dict[str, Tensor]) -> list[int]:
        """How many entries of the first axis of the vision tower's states each image takes."""
        return [1] * len(inputs["pixel_values"])

    def patch_pixels(
        self, model: Any, inputs: dict[str, Tensor], pixels: Tensor, image: int
    ) -> Tensor:
        """A view of ``pixels`` (the inputs' ``pixel_values``) by the image tokens it becomes.

        [row, col, channel, y, x] of one image; writing into it writes into ``pixels``.
        """
        grid = self.grids(model, inputs)[image]
        channels, height, width = pixels[image].shape
        y, x = height // grid.rows, width // grid.cols
        cut = pixels[image][:, : y * grid.rows, : x * grid.cols]
        return cut.view(channels, grid.rows, y, grid.cols, x).permute(1, 3, 0, 2, 4)

    def _require(self, inputs: dict[str, Tensor], *keys: str) -> None:
        missing = [key for key in keys if key not in inputs]
        if missing:
            raise InputError(
                f"{self.name} needs {', '.join(missing)} among its inputs; got {sorted(inputs)}. "
                "Pass everything that the processor returned."
            )

    def _chat(self, processor: Any, question: str, system: str | None = None) -> str:
        """One user turn with one image through the processor's own chat template."""
        messages = []
        if system is not None:
            messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages.append({"role": "user", "content": content})
        text = render_chat(processor, messages)
        if question not in text:
            raise DataError(
                f"the chat template of {type(processor).__name__} changed the question: gave "
                f"{question!r}, got {text!r}"
            )
        return text
