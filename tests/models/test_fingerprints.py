"""Fingerprints: the same for the same weights anywhere, another for any other."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import UnavailableError
from mechvrp.models import fingerprint
from tests.support import tiny


def loaded(name="llava-clip", **options):
    return mechvrp.load(tiny.hf_model(name, **options))


def test_it_is_of_the_weights_and_not_of_the_load():
    model = loaded()
    assert fingerprint(model) == fingerprint(loaded())
    assert fingerprint(model) == fingerprint(loaded(attn="eager"))
    assert len({fingerprint(loaded(name)) for name in tiny.NAMES}) == len(tiny.NAMES)
    assert fingerprint(loaded(seed=1)) != fingerprint(model)
    assert fingerprint(mechvrp.load(tiny.hf_model("llava-clip"), dtype="bfloat16")) != fingerprint(
        model
    )


def test_threads_do_not_change_it():
    before, threads = fingerprint(loaded()), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert fingerprint(loaded()) == before
    finally:
        torch.set_num_threads(threads)


def test_any_edited_weight_is_seen():
    model = loaded()
    before = fingerprint(model)
    for parameter in list(model.model.parameters())[::7]:
        flat = parameter.detach().view(-1)
        kept = flat[-1].clone()
        with torch.no_grad():
            flat[-1] = torch.nextafter(kept, torch.tensor(torch.inf))
        assert fingerprint(model) != before
        with torch.no_grad():
            flat[-1] = kept
        assert fingerprint(model) == before


def test_rows_in_another_order_are_another_model():
    model = loaded()
    before = fingerprint(model)
    weight = model.model.get_submodule(model.modules.layers)[0].mlp.down_proj.weight
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    assert fingerprint(model) != before


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int8])
def test_odd_sizes_and_places_are_read_to_the_last_byte(dtype):
    from mechvrp.models.fingerprints import _digest

    def digest(change):
        model = torch.nn.Module()
        values = torch.arange(24, dtype=dtype)
        values[change] += 1
        # Three, odd in number of bytes, one past the beginning of what they are in.
        weight = torch.nn.Parameter(values[1:20], requires_grad=False)
        model.register_parameter("w", weight)
        return _digest(type("M", (), {"model": model, "name": "m"}))

    found = {digest(place) for place in range(1, 20)}
    assert len(found) == 19
    assert digest(0) == digest(21)


def test_weights_that_are_elsewhere_have_none():
    model = loaded()
    model.model.to("meta")
    with pytest.raises(UnavailableError, match="not in memory"):
        fingerprint(model)


def test_without_weights_and_a_hub_id_there_is_none(tmp_path):
    from tests.support.processes import saved

    model = mechvrp.load(saved("llava-clip", tmp_path / "model"), dispatch=False)
    with pytest.raises(UnavailableError, match="without its weights.*it has no fingerprint"):
        fingerprint(model)
    model.hub |= {"repo_id": "owner/tiny", "revision": "a"}
    first = fingerprint(model)
    model.hub |= {"revision": "b"}
    assert fingerprint(model) != first
