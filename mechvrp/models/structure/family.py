"""``Structural``: the family of a model that no family describes, made for it from its structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mechvrp.errors import InputError, MechVRPError, UnavailableError, UnsupportedModelError
from mechvrp.models.families.base import Family, Grid, Modules
from mechvrp.models.placing import entrance_of
from mechvrp.models.rotations import check_rotations
from mechvrp.models.structure.facts import Facts
from mechvrp.models.structure.measuring import measure
from mechvrp.models.structure.probing import rope_positions
from mechvrp.models.structure.sameness import sameness

if TYPE_CHECKING:
    from nnsight import NNsight
    from PIL.Image import Image

__all__ = ["QUESTIONS", "Structural", "probe_images", "structural"]

#: What was measured in this process, by all that a model computes by; it holds no weights.
_KNOWN: dict[tuple[Any, ...], Facts] = {}

#: Questions of different lengths, asked of the images of a probe.
QUESTIONS = ("What is to be seen at the top of this picture?", "How many?")


class Structural(Family):
    """Everything comes from ``facts``, measured on one model; see ``structural``."""

    name: str  # type: ignore[misc]
    model_types: ClassVar[tuple[str, ...]] = ()
    measured = True

    def __init__(self, name: str, facts: Facts, probe: dict[str, Tensor]) -> None:
        self.name = name  # type: ignore[misc]
        self.facts = facts
        #: The inputs it was measured on.
        self.probe = probe
        #: What trials of a sweep's plans gave, on this model alone, by what it computed by then.
        self.tried: dict[Any, Any] = {}
        self.attention = facts.attention  # type: ignore[misc,assignment]
        self.required_inputs = facts.required  # type: ignore[misc]
        self.projected_field = facts.projected_field  # type: ignore[misc]
        self.forgets_image = facts.forgets_image  # type: ignore[misc]

    def modules(self, model: nn.Module) -> Modules:
        return self.facts.modules

    def check(self, model: nn.Module) -> Modules:
        return self.facts.modules

    def unavailable(self, component: str, layer: int | None = None) -> str:
        return self.facts.unavailable(component, layer)

    def image_keys(self, layer: int) -> tuple[str, str] | None:
        return self.facts.crossed.get(layer)

    def prompt(self, processor: Any, question: str, *, task: str, instruction: str | None) -> str:
        return _prompt(self, processor, question + (instruction or ""))

    def prepare(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self._require(inputs, *self.required_inputs)
        if (why := self.facts.notes.get("padding")) and not bool(inputs["attention_mask"].all()):
            raise UnavailableError(
                f"{self.name} cannot take prompts of different lengths in one batch: {why}. Give it prompts "
                "of one length, or one at a time (batch_size=1)"
            )
        # Processors give float32, which not every model casts.
        inputs = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        if "position_ids" not in inputs and self.facts.positions != "own":
            inputs["position_ids"] = self.position_ids(model, inputs)
        check_rotations(model, inputs)
        return inputs

    def position_ids(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        found = rope_positions(model, inputs) if self.facts.positions == "rope" else None
        return super().position_ids(model, inputs) if found is None else found

    def image_token_id(self, model: Any) -> int | None:
        return self.facts.image_token

    def inseparable(self) -> str:
        if self.facts.between:
            return f"{self.name} adds to the residual stream between its blocks"
        if self.facts.positions == "own":
            return f"{self.name} counts positions by itself"
        return super().inseparable()

    def soft_cap(self, model: Any) -> float | None:
        return self.facts.soft_cap

    def no_image(self) -> str:
        why = self.facts.notes.get("image", "")
        if why and self.facts.crossed:
            layers = ", ".join(map(str, self.facts.crossed))
            why += f". It is attended to in block {layers}: read and edit image_k and image_v there"
        return why

    def _counts(self, inputs: dict[str, Tensor]) -> list[int]:
        if self.facts.image_token is None:
            return [0] * len(inputs["input_ids"])
        return (inputs["input_ids"] == self.facts.image_token).sum(-1).tolist()

    def grids(self, model: Any, inputs: dict[str, Tensor]) -> list[Grid]:
        if self.facts.image_token is None:
            return []
        return self.facts.layout.grids(model, inputs, self._counts(inputs))

    def vision_rows(self, model: Any, inputs: dict[str, Tensor]) -> list[int]:
        return self.facts.layout.rows(model, inputs, self._counts(inputs))

    def patch_pixels(
        self, model: Any, inputs: dict[str, Tensor], pixels: Tensor, image: int
    ) -> Tensor:
        if "grid" in self.facts.notes or self.facts.image_token is None:
            raise UnavailableError(
                f"the image tokens of {self.name} have no places on a grid: "
                f"{self.facts.notes.get('grid') or self.no_image()}"
            )
        grid = self.grids(model, inputs)[image]
        return self.facts.layout.patch_pixels(inputs, pixels, image, grid)


def _prompt(family: Family, processor: Any, text: str) -> str:
    if getattr(processor, "chat_template", None):
        return family._chat(processor, text)
    token = getattr(processor, "image_token", None)
    if not token:
        raise UnavailableError(
            f"{type(processor).__name__} has neither a chat template nor an image token, so mechvrp does "
            "not know how to write a prompt for it; encode inputs yourself and give them to model.batch"
        )
    return f"{token}\n{text}"


def probe_images() -> list[Image]:
    """Two small images of noise, one wide and one high."""
    import PIL.Image

    generator = torch.Generator().manual_seed(0)
    return [
        PIL.Image.fromarray(
            torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8).numpy()
        )
        for size in ((56, 84), (84, 56))
    ]


class _Encoder(Structural):
    """Encodes the probe before anything is known."""

    def __init__(self) -> None:
        self.name = "probe"  # type: ignore[misc]


def _synthetic(processor: Any) -> dict[str, Tensor]:
    """Two questions about two images of noise, encoded by the processor."""
    encoder = _Encoder()
    prompts = [_prompt(encoder, processor, question) for question in QUESTIONS]
    return encoder.tokenize(processor, prompts, probe_images())


def _kind(model: Any) -> str:
    """The model type; with those of its parts where a family is written for others of the type."""
    from mechvrp.models.families import families

    kind: str = getattr(model.config, "model_type", None) or type(model).__name__
    if kind not in families():
        return kind
    parts = (getattr(model.config, name, None) for name in ("vision_config", "text_config"))
    return "-".join([kind, *(part.model_type for part in parts if part is not None)])


def structural(
    model: Any,
    envoy: NNsight,
    processor: Any = None,
    probe: dict[str, Tensor] | None = None,
) -> Structural:
    """A family for a model of a kind that none describes: found by structure, verified by runs.

    Some twenty forwards of the probe, many of which end behind the vision tower; what is measured is kept
    in memory for models that compute the same (``sameness``): code, settings, weights and probe.

    Args:
        model, envoy: the model in eval mode, and nnsight's envoy over it.
        processor: encodes the probe, two small images with questions of different lengths.
        probe: inputs of two samples or more with prompts of different lengths, in place of those.

    Raises:
        UnsupportedModelError: there is nothing to run it on, its blocks were not found, or what is done to
            look at it fails.
        InputError: it does not run on the probe.
    """
    kind = _kind(model)
    if probe is None and processor is None:
        from mechvrp.models.families import families

        raise UnsupportedModelError(
            f"no family describes model type {kind!r}; known: {', '.join(sorted(families()))}. mechvrp can "
            "find the sites of any other model by its structure and verify them, for which it needs to "
            "run it: give its processor (mechvrp.load(model, processor=...)), or inputs of two samples "
            "with prompts of different lengths (mechvrp.load(model, probe=inputs)). Or describe it with "
            "mechvrp.models.register_family."
        )
    if probe is None:
        try:
            inputs = _synthetic(processor)
        except (UnavailableError, MemoryError):
            raise
        except Exception as error:  # processors raise whatever their code happens to
            raise InputError(
                f"{type(processor).__name__} does not encode a probe of two images and questions "
                f"({type(error).__name__}: {error}); give inputs that you encoded: mechvrp.load(model, "
                "processor=processor, probe=inputs)"
            ) from error
    else:
        inputs = dict(probe)
    inputs.pop("labels", None)
    if "input_ids" not in inputs:
        raise InputError(f"a probe needs input_ids; got {sorted(inputs)}")
    inputs = {k: v.to(entrance_of(model)) for k, v in inputs.items() if isinstance(v, Tensor)}
    inputs = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
    key = _key(model, inputs)
    facts = _KNOWN.get(key) if key is not None else None
    if facts is None:
        try:
            facts = measure(model, envoy, inputs)
        except (MechVRPError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of the model's own code, or of nnsight, whatever it raises
            raise UnsupportedModelError(
                f"the structure of {type(model).__name__} could not be looked at ({type(error).__name__}: "
                f"{str(error)[:500]}). Describe the model by a family of its own "
                "(mechvrp.models.register_family)"
            ) from error
        if key is not None:
            _KNOWN[key] = facts
    return Structural(kind, facts, inputs)


def _key(model: Any, inputs: dict[str, Tensor]) -> tuple[Any, ...] | None:
    """What facts are known by; ``None`` where they are this model's alone."""
    import nnsight
    import transformers

    found = sameness(model, inputs)
    return None if found is None else (*found, transformers.__version__, nnsight.__version__)
