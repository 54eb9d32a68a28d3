"""Small runs of a model that show what holds of it; edits go through a bare nnsight envoy."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import nnsight
import torch
from nnsight.intervention.interleaver import OutOfOrderError
from torch import Tensor, nn

from mechvrp.models.structure.blocks import sums
from mechvrp.models.structure.layouts import Inputs, pixels_key
from mechvrp.models.structure.operations import (
    AGAIN,
    ATTENTION,
    residual_operation,
    strange_options,
)
from mechvrp.models.structure.skeleton import Skeleton, attends

if TYPE_CHECKING:
    from nnsight import NNsight

__all__ = ["Probe", "moved", "padded", "rope_positions", "takes_positions"]

#: Columns of padding that are added in front to see whether they change anything.
_PADDING = 3
#: Share of a state's numbers that differ where it has changed.
_CHANGED = 0.05
#: Steps of a number's own precision that rounding in another order may move it.
_ROUNDED = 256


class Probe:
    """A model, inputs of at least two samples, and what its blocks are.

    Args:
        model: a Hugging Face model in eval mode.
        envoy: nnsight's over it.
        inputs: complete, position ids included where the model takes them.
        bones: where its blocks are.
    """

    def __init__(self, model: Any, envoy: NNsight, inputs: Inputs, bones: Skeleton) -> None:
        self.model, self.envoy, self.inputs, self.bones = model, envoy, inputs, bones
        self.mask = inputs["attention_mask"].bool().cpu()

    def block(self, layer: int, path: str = "") -> Any:
        """The envoy of a block or of a module inside of it."""
        return self.envoy.get(f"{self.bones.layers}.{layer}.{path}".rstrip("."))

    def entered(self, inputs: Inputs) -> Tensor:
        """The residual stream that enters the first block; the run ends there."""
        first = self.block(0)
        with torch.no_grad(), self.envoy.trace(**inputs, use_cache=False) as t:
            found = first.input.clone().save()
            t.stop()
        return found

    def left(self, start: Tensor | None = None) -> Tensor:
        """The residual stream behind the last block, of a run that begins with ``start``."""
        first, last = self.block(0), self.block(self.bones.n_layers - 1)
        with torch.no_grad(), self.envoy.trace(**self.inputs, use_cache=False):
            if start is not None:
                first.input = start
            output = last.output
            found = (output[0] if isinstance(output, tuple) else output).clone().save()
        return found

    def moved(self, before: Tensor, after: Tensor) -> Tensor:
        """As ``moved``; padding never does."""
        return moved(before, after) & self.mask

    # ---- the image --------------------------------------------------------------------------

    def pixels(self) -> Tensor:
        """The images, in whatever shape the model takes them."""
        return self.inputs[pixels_key(self.inputs)]

    def answering(self) -> Tensor:
        """Which positions of the first block's input depend on the pixels, [batch, pos]."""
        key = pixels_key(self.inputs)
        if not key:
            return torch.zeros_like(self.mask)
        pixels = self.inputs[key]
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
        # Tiles of zeros are padding and stay so.
        changed = torch.where(pixels == 0, pixels, pixels + noise.to(pixels))
        after = self.entered({**self.inputs, key: changed})
        return self.moved(self.entered(self.inputs), after)

    def answers_to(
        self, masks: Iterable[Tensor], tower: nn.Module | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """By how much each position moves when parts of the images are changed, [batch, pos] twice for each.

        Without the tower's attention, through which every patch reaches every token. First the
        movement, then whether it is there at all. Masks say what of the pixels is changed.
        """
        key, pixels = pixels_key(self.inputs), self.pixels()
        # Another picture, not one that is brighter: norms take that out.
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
        other = pixels + 3 * noise.to(pixels)
        with _WithoutAttention(tower):
            before = self.entered(self.inputs)
        for mask in masks:
            changed = torch.where(mask.to(pixels.device), other, pixels)
            with _WithoutAttention(tower):
                after = self.entered({**self.inputs, key: changed})
            gap = (before.float() - after.float()).abs().amax(-1).cpu() * self.mask
            yield gap, self.moved(before, after)

    def tower_rows(self, vision_layer: str) -> tuple[int, ...]:
        """The shape of what a layer of the vision tower gives."""
        layer = self.envoy.get(vision_layer)
        with torch.no_grad(), self.envoy.trace(**self.inputs, use_cache=False) as t:
            output = layer.output
            found = nnsight.save(tuple(output.shape) if isinstance(output, Tensor) else ())
            t.stop()
        return found

    # ---- the decoder ------------------------------------------------------------------------

    def looks(self, image: Tensor) -> str:
        """Which way the prompt attends: ``"causal"``, ``"prefix"``, or ``"image"`` (inside images)."""
        start = self.entered(self.inputs)
        changed = start.clone()
        generator = torch.Generator().manual_seed(2)
        places = []
        for row in range(len(start)):
            tokens = image[row].nonzero().flatten()
            # In some rows the last token, in others the last of the image.
            place = int(tokens[-1]) if row % 2 and len(tokens) else start.shape[1] - 1
            noise = torch.randn(start.shape[-1], generator=generator).to(start)
            changed[row, place] += 3 * noise * start[row, place].std()
            places.append(place)
        moved = self.moved(self.left(start), self.left(changed))
        earlier = torch.arange(moved.shape[1]) < torch.tensor(places)[:, None]
        backwards = moved & earlier
        if not bool(backwards.any()):
            return "causal"
        return "image" if not bool((backwards & ~image).any()) else "prefix"

    def handed(self, layers: list[int], attn: str) -> list[tuple[tuple[int, ...], list[str]]]:
        """Of the call of transformers' attention function: the shape it gives, and its strange options.

        An empty shape where there is no such call, or more than one.
        """
        names = [list(self.block(layer, attn).source.names) for layer in layers]
        with torch.no_grad(), self.envoy.trace(**self.inputs, use_cache=False):
            found: list[tuple[tuple[int, ...], list[str]]] = []
            for layer, own in zip(layers, names, strict=True):
                if ATTENTION not in own or AGAIN in own:
                    found.append(((), []))
                    continue
                call = getattr(self.block(layer, attn).source, ATTENTION)
                options = strange_options(call.inputs[1])
                found.append((tuple(call.output[0].shape), options))
            found = nnsight.save(found)
        return found

    def written(self, layers: list[int], o: str, write: str) -> list[bool]:
        """Whether what a module writes is the same at all positions where heads' outputs are zero."""
        with torch.no_grad(), self.envoy.trace(**self.inputs, use_cache=False):
            found = []
            for layer in layers:
                heads = self.block(layer, o)
                heads.input = torch.zeros_like(heads.input)
                output = self.block(layer, write).output
                value = output[0] if isinstance(output, tuple) else output
                found.append(bool((value == value[:1, :1]).all()))
            found = nnsight.save(found)
        return found

    def projected(self, path: str, name: str) -> Tensor:
        """Which positions of the first block's input change with what a projector gives."""
        before, projector, first = self.entered(self.inputs), self.envoy.get(path), self.block(0)
        with torch.no_grad(), self.envoy.trace(**self.inputs, use_cache=False) as t:
            output = projector.output
            if name:
                projector.output = type(output)(**{**output, name: getattr(output, name) * 2})
            else:
                projector.output = output * 2
            after = first.input.clone().save()
            t.stop()
        return self.moved(before, after)

    def without(self, layers: list[int], path: str, o: str, share: int = 1) -> list[Tensor]:
        """What heads give (``z``) in some layers, where the first part in ``share`` of a module's is zero.

        Args:
            layers: all of them are changed in one run.
            path: the module that makes queries, keys or values; "" for a run without changes.
            o: the module that reads what heads give.
            share: of how many equal parts of its output the first one is zeroed.
        """
        with torch.no_grad(), self.envoy.trace(**self.inputs, use_cache=False):
            found = []
            for layer in layers:
                if path:
                    module = self.block(layer, path)
                    value = module.output.clone()
                    value[..., : value.shape[-1] // share] = 0
                    module.output = value
                found.append(self.block(layer, o).input.clone())
            found = nnsight.save(found)
        return found

    def residual(self, layer: int, attn_write: str) -> str:
        """ "" if the stream between attention and MLP is where it is looked for, else why not."""
        block = self.block(layer)
        name = residual_operation(block.source.names)
        if not name:
            return "no such assignment was found in its forward (attention and MLP may be parallel)"
        write, operation = self.block(layer, attn_write), getattr(block.source, name)
        try:
            with torch.no_grad(), self.envoy.trace(**self.inputs, use_cache=False) as t:
                given = block.input.clone()
                output = write.output
                wrote = (output[0] if isinstance(output, tuple) else output).clone()
                value = operation.output
                found = nnsight.save([given, wrote, value])
                t.stop()
        except OutOfOrderError:
            return "the assignment that was found comes before what attention writes"
        given, wrote, value = found
        if isinstance(value, Tensor) and sums([given, wrote], value):
            return ""
        return "the value there is not its input and what attention wrote"

    def resumed(self, layer: int, *, pixels: bool) -> Tensor:
        """Logits of a run whose blocks before ``layer`` are skipped with what they gave."""
        before = self.block(layer - 1)
        with torch.no_grad(), self.envoy.trace(**self.inputs, use_cache=False) as t:
            state = before.output
            state = nnsight.save(state.clone() if isinstance(state, Tensor) else state)
            t.stop()
        key = pixels_key(self.inputs)
        inputs = {k: v for k, v in self.inputs.items() if pixels or k != key}
        envoy = self.envoy
        with torch.no_grad(), envoy.trace(**inputs, use_cache=False):
            for skipped in range(layer):
                self.block(skipped).skip(state)
            found = envoy.output.logits.save()
        return found


def moved(before: Tensor, after: Tensor) -> Tensor:
    """At which positions two states differ, [batch, pos].

    Of what depends on a change nearly every number changes, small ones too, so each is measured against
    itself. What does not is computed alike, to the last bit but where experts take other tokens along.
    """
    wide = torch.finfo(before.dtype).bits >= 32  # of narrower ones a step may be a change
    least = _ROUNDED * torch.finfo(before.dtype).eps if wide else 0.0
    after = after.to(before.device)
    gap = (before - after).abs()
    share = (gap > least * torch.maximum(before.abs(), after.abs())).float().mean(-1)
    return (share > _CHANGED).cpu()


class _WithoutAttention:
    """Attention of a vision tower writes zeros inside of the block; whatever the number of its calls."""

    def __init__(self, tower: nn.Module | None) -> None:
        self.tower = tower
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        def silent(_: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (torch.zeros_like(output[0]), *output[1:])
            return torch.zeros_like(output)

        for name, module in self.tower.named_modules() if self.tower is not None else ():
            outer = name.rpartition(".")[0]
            inside = outer and attends(outer, self.tower.get_submodule(outer))  # type: ignore[union-attr]
            blocks = any(isinstance(part, nn.ModuleList) for part in module.modules())
            if attends(name, module) and not inside and not blocks and name:
                self.handles.append(module.register_forward_hook(silent))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def padded(inputs: Inputs, pad: int) -> Inputs:
    """The same inputs with more padding in front of every prompt."""
    shape, found = inputs["input_ids"].shape, {}
    for name, value in inputs.items():
        if name != "position_ids" and value.shape[:2] == shape and not value.is_floating_point():
            fill = pad if name == "input_ids" else 0
            after = (0, 0) * (value.ndim - 2)
            value = nn.functional.pad(value, (*after, _PADDING, 0), value=fill)
        found[name] = value
    found.pop("position_ids", None)
    return found


def takes_positions(model: Any) -> bool:
    """Whether a model's forward takes position ids."""
    return "position_ids" in inspect.signature(model.forward).parameters


def rope_positions(model: Any, inputs: Inputs) -> Tensor | None:
    """Positions by a model's own rule for images (``get_rope_index``), ``None`` where it has none."""
    owner = next((m for m in model.modules() if hasattr(m, "get_rope_index")), None)
    if owner is None:
        return None
    wanted = inspect.signature(owner.get_rope_index).parameters
    given = {k: v for k, v in inputs.items() if k in wanted}
    found: Tensor = owner.get_rope_index(**given)[0]
    return found
