"""Qwen2-VL and Qwen2.5-VL: native resolution, a patch merger, multimodal rotary positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mechvrp.errors import InputError
from mechvrp.models.families.base import Family, Grid, Modules

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Qwen2VL"]

SYSTEM = "You are a helpful assistant."
#: Instructions of the official evaluation: short answers, and by task.
SHORT = "\nPlease try to answer the question with short words or phrases if possible."
BY_TASK = {
    "existence": " Please answer yes or no.",
    "multiple-choice": "\nPlease select the correct answer from the options above.",
    "open-ended": "",
}


class Qwen2VL(Family):
    name = "qwen2-vl"
    model_types = ("qwen2_vl", "qwen2_5_vl")
    # mm_token_type_ids places images in the multimodal rotary positions.
    required_inputs = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
    # Qwen2.5-VL's merger works in window order; the tower's pooler_output is back in raster order.
    projected_field = "pooler_output"
    features_as = "parts"

    def modules(self, model: nn.Module) -> Modules:
        visual = "model.visual"
        return Modules(vision_layers=f"{visual}.blocks", projector=visual)

    def prompt(self, processor: Any, question: str, *, task: str, instruction: str | None) -> str:
        if instruction is None:
            instruction = BY_TASK.get(task, SHORT)
        question += instruction
        if getattr(processor, "chat_template", None):
            return self._chat(processor, question)
        return (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
            f"<|vision_start|>{processor.image_token}<|vision_end|>{question}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )

    def position_ids(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Temporal, height and width positions, [3, batch, pos].

        Given explicitly because the model otherwise keeps an offset between calls.
        """
        positions, _ = model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )
        return positions

    def grids(self, model: Any, inputs: dict[str, Tensor]) -> list[Grid]:
        merge = model.config.vision_config.spatial_merge_size
        grids = []
        for index, (frames, height, width) in enumerate(inputs["image_grid_thw"].tolist()):
            if frames != 1:
                raise InputError(f"image {index} has {frames} frames; mechvrp takes still images")
            grids.append(Grid(height // merge, width // merge))
        return grids

    def vision_rows(self, model: Any, inputs: dict[str, Tensor]) -> list[int]:
        return inputs["image_grid_thw"].prod(-1).tolist()

    def patch_pixels(
        self, model: Any, inputs: dict[str, Tensor], pixels: Tensor, image: int
    ) -> Tensor:
        """As in the base class; ``y`` counts the patches merged into a token, ``x`` their pixels."""
        grid = self.grids(model, inputs)[image]
        sizes = self.vision_rows(model, inputs)
        first = sum(sizes[:image])
        own = pixels[first : first + sizes[image]]
        merged = model.config.vision_config.spatial_merge_size**2
        channels = model.config.vision_config.in_channels
        # Patches come token by token, each as (channel, frame, y, x).
        parts = own.view(grid.rows, grid.cols, merged, channels, -1)
        return parts.permute(0, 1, 3, 2, 4)
