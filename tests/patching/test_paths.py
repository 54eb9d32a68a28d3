"""Path patching against runs written out by hand, and what must hold of any path."""

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError, SiteError
from mechvrp.patching import Node, activation_patching, path_patching
from tests.support import tiny

LAST = 2  # of three layers


@pytest.fixture(scope="module", params=["llava-clip", "paligemma2", "qwen2-vl"])
def pair(request):
    model = mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))

    def batch(seed):
        return model.encode(
            [
                Sample(tiny.image(seed + i), question, "yes", f"{seed}-{i}", "existence")
                for i, question in enumerate(("Is there a seven in the image?", "How many?"))
            ],
            instruction="",
        )

    return model, batch(0), batch(10)


def values(model, batch, names):
    found = {}
    for name in names:
        with mechvrp.trace(model, batch) as t:
            found[name] = t[name].save()
    return found


def by_hand(model, clean, corrupted, sender, receiver):
    """All blocks run, every attention and MLP between the two held by plain assignment."""
    writes = [
        f"blocks.{i}.hook_{c}" for i in range(model.n_layers) for c in ("attn_out", "mlp_out")
    ]
    own = values(model, clean, writes)
    other = values(model, corrupted, [sender.site])
    held = held_between(sender.site)
    with mechvrp.trace(model, clean) as t:
        t.apply(sender.edit(other[sender.site]))
        for name in writes:
            if name == receiver.site:
                received = t[name].clone().save()
            if name in held:
                t[name] = own[name]
            if receiver.site in AFTER.get(name, ()):
                received = t[receiver.site].clone().save()
        logits = t.logits.save()
    if receiver.site == "unembed.hook_out":
        return logits[:, -1]
    with mechvrp.trace(model, clean) as t:
        t.apply(receiver.edit(received))
        logits = t.logits.save()
    return logits[:, -1]


# Receivers that are computed behind a write and before the next one.
AFTER = {
    "blocks.0.hook_mlp_out": ("blocks.1.attn.hook_q", "blocks.1.attn.hook_k"),
    "blocks.1.hook_mlp_out": ("blocks.2.attn.hook_v",),
    "blocks.2.hook_attn_out": ("blocks.2.mlp.hook_post",),
}


def held_between(sender):
    order = [f"blocks.{i}.hook_{c}" for i in range(3) for c in ("attn_out", "mlp_out")]
    own = {"blocks.0.attn.hook_z": order[0], "blocks.0.mlp.hook_post": order[1]}.get(sender, sender)
    return order[order.index(own) + 1 :] if own in order else order


PATHS = [
    (Node("blocks.0.attn.hook_z", heads=1), Node("blocks.1.attn.hook_q", positions="last")),
    (Node("blocks.0.hook_mlp_out", positions="image"), Node("blocks.1.attn.hook_k", heads=[0])),
    (Node("blocks.0.hook_attn_out"), Node("blocks.2.attn.hook_v")),
    (Node("blocks.0.mlp.hook_post", units=[1, 5]), Node("blocks.2.mlp.hook_post")),
    (Node("blocks.0.attn.hook_z"), Node("blocks.2.hook_mlp_out", positions=[-1, -2])),
    (Node("blocks.0.hook_resid_pre", positions="image"), Node("blocks.1.hook_attn_out")),
    (Node("blocks.0.attn.hook_z", positions="last"), Node("unembed.hook_out")),
]


@pytest.mark.parametrize("path", PATHS, ids=[f"{s} to {r}" for s, r in PATHS])
def test_paths_are_the_runs_written_out(pair, path):
    model, clean, corrupted = pair
    sender, receiver = path
    expected = by_hand(model, clean, corrupted, sender, receiver)
    found = path_patching(
        model, clean, corrupted, [sender], [receiver], measure="logit", target=[7, 8],
        progress=False,
    )  # fmt: skip
    scale = float(expected.abs().max())
    np.testing.assert_allclose(
        found["value"].values[0, 0], expected[[0, 1], [7, 8]], atol=1e-5 * scale
    )
    assert np.abs(found["value"] - found["unpatched"]).max() > 1e-5 * scale


def test_the_last_mlp_reaches_the_logits_directly_only(pair):
    model, clean, corrupted = pair
    given = {"measure": "logit", "target": [7, 8], "progress": False}
    for direction in ("noise", "denoise"):
        path = path_patching(
            model, clean, corrupted, [Node(f"blocks.{LAST}.hook_mlp_out")], [Node("logits")],
            direction=direction, **given,
        )  # fmt: skip
        whole = activation_patching(
            model, clean, corrupted, "mlp_out", layers=[LAST], positions=["all"],
            direction=direction, **given,
        )  # fmt: skip
        np.testing.assert_allclose(path["value"][0, 0], whole["value"][0, 0], atol=1e-5)


def test_receivers_before_the_sender_have_no_value(pair):
    model, clean, corrupted = pair
    senders = [Node("blocks.0.hook_mlp_out"), Node("blocks.1.hook_mlp_out")]
    receivers = [
        Node("blocks.1.hook_attn_out"),
        [Node("blocks.2.attn.hook_q"), Node("blocks.2.attn.hook_k")],
        Node("logits"),
    ]
    found = path_patching(model, clean, corrupted, senders, receivers, progress=False)
    missing = np.isnan(found["change"].values)
    assert missing.tolist() == [[False, False, False], [True, False, False]]
    real = ~missing
    assert (found["change_low"].values[real] <= found["change"].values[real]).all()
    assert (found["change_high"].values[real] >= found["change"].values[real]).all()
    assert found["receiver"].values[1].count(" + ") == 1


def test_a_run_patched_with_itself_does_not_change(pair):
    model, clean, _ = pair
    found = path_patching(
        model, clean, clean, [Node("blocks.0.attn.hook_z")],
        [Node("blocks.1.attn.hook_q"), Node("blocks.2.hook_mlp_out"), Node("logits")],
        progress=False,
    )  # fmt: skip
    assert np.abs(found["change"]).max() < 1e-5


def test_unusable_paths_are_refused(pair):
    model, clean, corrupted = pair

    def ask(sender, receiver, **options):
        return path_patching(model, clean, corrupted, [sender], [receiver], **options)

    mlp = Node("blocks.1.hook_mlp_out")
    with pytest.raises(SiteError, match="cannot send"):
        ask(Node("blocks.0.attn.hook_q"), mlp)
    with pytest.raises(SiteError, match="cannot receive"):
        ask(Node("blocks.0.attn.hook_z"), Node("blocks.1.hook_resid_post"))
    with pytest.raises(SiteError, match="of its own"):
        ask(Node("blocks.0.attn.hook_z"), [mlp, Node("logits")])
    with pytest.raises(InputError, match="behind any sender"):
        ask(mlp, Node("blocks.1.hook_attn_out"))
    with pytest.raises(SiteError, match="head"):
        ask(Node("blocks.0.attn.hook_z", heads=9), mlp)
    with pytest.raises(InputError, match="one measure"):
        ask(Node("blocks.0.attn.hook_z"), mlp, measure=["logit", "kl"])
    assert torch.is_grad_enabled()
