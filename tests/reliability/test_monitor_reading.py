"""What the monitor reads is what the study observes, in every family, and nothing is left on the model."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import mechvrp
from mechvrp.errors import NumericalError
from mechvrp.reliability import STRUCTURE_SIGNALS, observe
from mechvrp.reliability.monitor_reading import read_answers
from tests.support import tiny

CHEAP = ("p_tok", "answer_probability", "logit_entropy", "own_margin", "probe")


def loaded(name):
    return mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))


def check(model, read, seen, layer, names):
    table = seen.to_frame()
    assert [a.text for a in read.answers] == [a.text for a in seen.answers]
    assert list(read.columns) == [name for name in names if name != "probe"]
    for name, values in read.columns.items():
        assert np.allclose(values, table[name].to_numpy(), atol=2e-5, rtol=1e-5), name
    assert np.allclose(read.hidden, seen.hidden[layer], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_reading_is_an_observation(name):
    model = loaded(name)
    batch = model.encode(tiny.samples())
    # Before any other forward, and before nnsight has wrapped the model.
    read = read_answers(model, batch, CHEAP, 1, 5)
    assert [a.text for a in read.answers] == model.generate(batch, max_new_tokens=5)
    seen = observe(model, tiny.samples(), k=0, max_new_tokens=5)
    check(model, read, seen, 1, CHEAP)
    # And after.
    for layer in (0, model.n_layers - 1):
        check(model, read_answers(model, batch, CHEAP, layer, 5), seen, layer, CHEAP)
    if name not in ("paligemma2", "qwen2-vl", "qwen2.5-vl"):  # images of one token have no map
        structural = (*CHEAP, *STRUCTURE_SIGNALS)
        check(model, read_answers(model, batch, structural, 2, 5), seen, 2, structural)


def test_no_hook_stays_even_when_the_model_fails():
    model = loaded("llava-clip")
    batch = model.encode(tiny.samples())
    model.generate(
        batch, max_new_tokens=1
    )  # transformers puts hooks of its own at the first forward
    before = sum(len(m._forward_hooks) for m in model.model.modules())
    read_answers(model, batch, CHEAP, 1, 3)
    assert sum(len(m._forward_hooks) for m in model.model.modules()) == before
    broken = batch.inputs["pixel_values"][:, :, :3]
    with pytest.raises((ValueError, RuntimeError)):
        read_answers(
            model,
            type(batch)({**batch.inputs, "pixel_values": broken}, batch.tokens, batch.samples),
            CHEAP,
            1,
            3,
        )
    assert sum(len(m._forward_hooks) for m in model.model.modules()) == before


def test_nan_is_an_error():
    import torch

    hf = tiny.hf_model("llava-clip")
    with torch.no_grad():
        hf.model.language_model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    model = mechvrp.load(hf, processor=tiny.processor("llava-clip"))
    with pytest.raises(NumericalError, match="block 1"):
        read_answers(model, model.encode(tiny.samples()), CHEAP, 1, 3)


def test_two_threads_do_not_read_each_other():
    model = loaded("llava-clip")
    batches = [model.encode(sample) for sample in tiny.samples()[:2]]
    alone = [read_answers(model, batch, CHEAP, 1, 4).hidden for batch in batches]
    found = {}

    def many(which):
        found[which] = [read_answers(model, batches[which], CHEAP, 1, 4).hidden for _ in range(10)]

    threads = [threading.Thread(target=many, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which, values in found.items():
        assert len(values) == 10
        assert all(np.allclose(value, alone[which], atol=1e-6) for value in values)
