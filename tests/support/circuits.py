"""Pairs and small models for circuits: where every part that is alive is known."""

from __future__ import annotations

from typing import Any

import torch

import mechvrp
from mechvrp.circuits import PairBatch, Pairs
from mechvrp.data import Sample
from mechvrp.patching.grids import values_of
from tests.support import tiny

QUESTIONS = ("Is it?", "What digit is here?")


def sides(n: int = 4, questions: tuple[str, ...] = QUESTIONS) -> list[list[Sample]]:
    """Samples, and their counterparts that differ in the picture alone."""
    asked = [questions[i % len(questions)] for i in range(n)]
    return [
        [
            Sample(tiny.image(seed + i), question, "yes", f"{seed}-{i}", "existence")
            for i, question in enumerate(asked)
        ]
        for seed in (0, 100)
    ]


def load(name: str, **more: Any) -> Any:
    return mechvrp.load(tiny.hf_model(name, **more), processor=tiny.processor(name))


def pairs_of(model: Any, n: int = 4, **options: Any) -> Pairs:
    """Pairs told apart by the two tokens whose logits their pictures change most, up and down."""
    first, second = sides(n, **options)
    batches = [model.encode(side, instruction="") for side in (first, second)]
    logits = [values_of(model, batch, [])[1] for batch in batches]
    change = logits[0] - logits[1]
    target, foil = change.argmax(-1).tolist(), change.argmin(-1).tolist()
    part = PairBatch(*batches, tuple(target), tuple(foil))
    return Pairs((part,), tuple(s.image_id for s in first), model.name)


#: The heads (layer, head) and the neurons (layer, unit) of `sparse` that write anything.
HEAD, NEURONS = (1, 1), (2, (3, 17, 29))


def sparse(name: str = "llava-clip") -> Any:
    """A model in which one head and three neurons of the layer behind it write to the residual stream."""
    made = tiny.hf_model(name)
    layers = made.model.language_model.layers
    d_head = layers[0].self_attn.o_proj.in_features // made.config.text_config.num_attention_heads
    with torch.no_grad():
        for number, block in enumerate(layers):
            alive = torch.zeros(block.self_attn.o_proj.in_features)
            if number == HEAD[0]:
                alive[HEAD[1] * d_head : (HEAD[1] + 1) * d_head] = 1
            block.self_attn.o_proj.weight *= alive
            alive = torch.zeros(block.mlp.down_proj.in_features)
            if number == NEURONS[0]:
                alive[list(NEURONS[1])] = 8
            block.mlp.down_proj.weight *= alive
    return mechvrp.load(made, processor=tiny.processor(name))
