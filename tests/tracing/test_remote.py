"""Remote runs: what is sent runs where this package is not, and gives what a run here gives."""

from __future__ import annotations

import nnsight
import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, NumericalError, SiteError
from tests.support import tiny


def loaded(name, **options):
    model = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name), **options)
    return model, model.encode(tiny.samples())


@pytest.mark.parametrize("name", ["llava-clip", "qwen2-vl"])
def test_a_trace_reads_and_edits_alike(name):
    model, batch = loaded(name)
    given = torch.linspace(-1, 1, 32).expand(3, batch.tokens.length, -1).contiguous()
    found = []
    for remote in (False, "local"):
        with mechvrp.trace(model, batch, remote=remote) as t:
            first = t.resid_post[0].save()
            t.resid_post[0] = given
            rows = t.attention_rows(1).save()
            t.neurons[1][:, -1, 3] = 0
            own = model.envoy.get(f"{model.modules.layers}.1").output.clone().save()
            t.apply(mechvrp.zero("z", layer=2, heads=1), mechvrp.knockout(2, heads=[0, 3]))
            t.apply(mechvrp.scale("resid_post", 0.5, layer=2))  # made at the end of the body
            out = t["unembed.hook_out"].save()
        found.append((first, rows, own, out))
    for here, there in zip(*found, strict=True):
        assert torch.equal(here, there)
    with mechvrp.trace(model, batch) as t:
        clean = t.logits.save()
    assert (found[0][-1] - clean).abs().max() > 1e-3


def test_edits_that_nothing_reads_behind_are_made_at_the_end():
    model, batch = loaded("llava-clip")
    for remote in (False, "local"):
        with pytest.raises(NumericalError, match="sees nothing but blocked keys"):
            with mechvrp.trace(model, batch, remote=remote) as t:
                t.apply(mechvrp.knockout(1, query="last", key="all"))


def pooled(value):
    return value.float().mean(-1)


def halved(logits, clean):
    return pooled(logits) / 2


def last_norm(t):
    return t.resid_post[1][:, -1].norm(dim=-1)


@pytest.mark.parametrize("name", ["llava-clip", "qwen2-vl"])
def test_caches_and_sweeps_alike(name):
    model, _ = loaded(name)
    sites = ["resid_post", "z", "projected", "vision_resid_post", "blocks.1.attn.hook_pattern"]
    a, b = (
        mechvrp.cache(model, tiny.samples(), sites, positions="image", batch_size=2, remote=remote)
        for remote in (False, "local")
    )
    assert list(a) == list(b)
    assert all(torch.equal(a.flat(site), b.flat(site)) for site in a)
    batch = model.encode(tiny.samples())
    variants = {
        "clean": [],
        "late": mechvrp.zero("neurons", layer=2, positions="last", units=[1, 5]),
        "noise": mechvrp.noise("resid_pre", 0.5, layer=1, positions="image"),
        "knockout": mechvrp.knockout(1, query="last", key="question"),
        "bad": mechvrp.zero("neurons", layer=7),
    }
    measures = {"logits": "logits", "attention": "attention", "half": halved, "norm": last_norm}
    with pytest.warns(UserWarning, match="1 of 5 variants"):
        here = mechvrp.sweep(model, batch, variants, measures, progress=False)
    with pytest.warns(UserWarning, match="1 of 5 variants"):
        there = mechvrp.sweep(model, batch, variants, measures, progress=False, remote="local")
    assert here.drop_attrs().equals(there.drop_attrs())
    assert here.attrs["token_layers"] == there.attrs["token_layers"]  # the same ways of sharing


def test_what_cannot_run_remotely_is_refused_before_it_is_sent(monkeypatch):
    import pandas
    from nnsight.intervention.backends.remote import RemoteBackend

    def sent(*_, **__):
        raise AssertionError("something was sent")

    monkeypatch.setattr(RemoteBackend, "request", sent)
    model, batch = loaded("llava-clip")
    for remote in (True, "https://example.org"):
        for call in (
            mechvrp.trace,
            lambda m, b, remote: mechvrp.cache(m, b, "embed", remote=remote),
        ):
            with pytest.raises(InputError, match="was not loaded by a hub id, so no server has it"):
                call(model, batch, remote=remote)
    with pytest.raises(InputError, match="remote is True"):
        mechvrp.trace(model, batch, remote="ndif")
    with pytest.raises(InputError, match="do not have the package 'pandas'"):
        with mechvrp.trace(model, batch, remote="local") as t:
            pandas.DataFrame(t.resid_post[0][:, -1].tolist()).save()
    with pytest.raises(InputError, match="mechvrp.reliability does not travel"):
        with mechvrp.trace(model, batch, remote="local") as t:
            mechvrp.reliability.monitor.Monitor(t.logits).save()
    with pytest.raises(InputError, match=r"mechvrp.data.registry.load does not travel"):
        with mechvrp.trace(model, batch, remote="local") as t:
            (t.logits.mean() * len(mechvrp.data.load("scenes", limit=2))).save()
    with pytest.raises(InputError, match="leave it out"):
        mechvrp.sweep(model, batch, [[]], on_clean=print, remote="local", progress=False)
    with pytest.raises(SiteError, match="has 3 layers"):  # an error at a server is the one of here
        with mechvrp.trace(model, batch, remote="local") as t:
            t.resid_post[9].save()
    with mechvrp.trace(model, batch) as t:  # nothing is left behind
        assert torch.isfinite(t.logits).all()


def test_what_a_body_does_in_vain_is_refused_before_it_is_sent(tmp_path):
    model, batch = loaded("llava-clip")
    kept, by_name, rows, total = [], {}, torch.zeros(3), torch.zeros(())
    here = {"remote": "local"}
    with pytest.raises(InputError, match=r"kept lies here.*kept\.append"):
        with mechvrp.trace(model, batch, **here) as t:
            for layer in range(2):
                kept.append(t.resid_post[layer][:, -1].save())
    with pytest.raises(InputError, match="by_name lies here"):
        with mechvrp.trace(model, batch, **here) as t:
            by_name["a"] = t.resid_post[0].save()
    with pytest.raises(InputError, match="rows lies here"):
        with mechvrp.trace(model, batch, **here) as t:
            rows[0] = t.resid_post[0].mean()
    with pytest.raises(InputError, match="total lies here"):
        with mechvrp.trace(model, batch, **here) as t:
            total += t.resid_post[0].mean()
    with pytest.raises(InputError, match=r"model\.generate runs the model"):
        with mechvrp.trace(model, batch, **here) as t:
            model.generate(batch)
            t.logits.save()
    with (tmp_path / "notes").open("w") as handle:
        with pytest.raises(InputError, match=r"an open file \(.*notes\) cannot be sent"):
            with mechvrp.trace(model, batch, **here) as t:
                handle.write(str(t.logits.shape))
    assert not kept
    assert not by_name
    # A parameter of a function in the body is not what is called so outside.
    h = torch.zeros(2)
    with mechvrp.trace(model, batch, **here) as t:

        def half(h):
            h[:, -1] = h[:, -1] / 2
            return h

        t.resid_post[1] = half(t.resid_post[1].clone())
        halved = t.resid_post[1][:, -1].save()
    assert h.tolist() == [0, 0]
    with mechvrp.trace(model, batch) as t:
        assert torch.allclose(halved, t.resid_post[1][:, -1] / 2)
    # What is made in the body may be filled there, also under a name that means something else outside.
    kept, total = [1.0], torch.ones(())
    with mechvrp.trace(model, batch, **here) as t:
        kept = []
        total = t.resid_post[0].sum() * 0
        for layer in range(2):
            kept.append(t.resid_post[layer][:, -1])
            total += kept[-1].sum()
        nnsight.save(kept)
        total.save()
    with mechvrp.trace(model, batch) as t:
        first = t.resid_post[0][:, -1].save()
        second = t.resid_post[1][:, -1].save()
    assert torch.equal(kept[0], first)
    assert torch.equal(kept[1], second)
    assert torch.allclose(total, first.sum() + second.sum())


def test_a_curve_alike():
    model = mechvrp.load("tiny-llava", device="cpu")
    samples = mechvrp.data.load("scenes", split="adversarial", limit=16)
    width = model.d_mlp
    scores = torch.linspace(1, 0, width).numpy()
    ranking = mechvrp.Ranking(("blocks.2.mlp.hook_post",), scores)
    curves = [
        mechvrp.ablation_curve(
            model,
            samples,
            ranking,
            [0, 8, 64],
            draws=3,
            mode="mean",
            over=mechvrp.data.load("scenes", split="train", limit=8),
            n_resamples=20,
            remote=remote,
        )
        for remote in (False, "local")
    ]
    assert curves[0].points == curves[1].points
    assert curves[0].outcomes.values["margin"].keys() == curves[1].outcomes.values["margin"].keys()


@pytest.mark.slow
def test_a_model_without_weights_on_a_server_without_this_package(tmp_path, monkeypatch):
    import subprocess
    import sys
    from pathlib import Path

    from nnsight.intervention.backends.remote import RemoteBackend
    from nnsight.modeling import huggingface

    from tests.support import server
    from tests.support.processes import saved

    folder = saved("llava-clip", tmp_path / "model")
    whole, model = mechvrp.load(folder, device="cpu"), mechvrp.load(folder, dispatch=False)
    assert all(p.is_meta for p in model.model.parameters())
    batch = model.encode(tiny.samples())
    with pytest.raises(InputError, match="without its weights"):
        mechvrp.trace(model, batch)
    with pytest.raises(InputError, match="without its weights"):
        model.generate(batch)
    with pytest.raises(InputError, match="was not loaded by a hub id"):
        mechvrp.trace(model, batch, remote=True)
    model.hub |= {"repo_id": "owner/tiny"}
    monkeypatch.setitem(huggingface._ID_CACHE, "owner/tiny", "owner/tiny")
    sizes = []

    def request(self, envelope, tracer):
        assert envelope.model_key == (
            "nnsight.modeling.transformers.TransformersModel:"
            '{"repo_id": "owner/tiny", "revision": null, "task": "image-text-to-text"}'
        )
        assert envelope.env == {"attn_implementation": "sdpa"}
        self.compress = False
        payload, result = tmp_path / "payload", tmp_path / "result"
        payload.write_bytes(self._serialize(tracer))
        sizes.append(payload.stat().st_size)
        run = [sys.executable, "-I", server.__file__, folder, payload, result]
        subprocess.run(run, check=True, cwd=Path(tmp_path))
        return torch.load(result, weights_only=False)

    monkeypatch.setattr(RemoteBackend, "request", request)
    edits = mechvrp.zero("neurons", layer=1, positions="last", units=[3, 17])
    with mechvrp.trace(model, batch, remote=True) as t:
        t.apply(edits, mechvrp.knockout(2))
        there = t.logits.save()
    with mechvrp.trace(whole, batch) as t:
        t.apply(edits, mechvrp.knockout(2))
        here = t.logits.save()
    torch.testing.assert_close(there, here)
    variants = [mechvrp.scale("z", 0.5, layer=i, positions="last") for i in range(3)]
    a = mechvrp.sweep(model, batch, variants, ["kl", "logit"], remote=True, progress=False)
    b = mechvrp.sweep(whole, batch, variants, ["kl", "logit"], progress=False)
    assert abs(a.logit - b.logit).max() < 1e-5
    assert max(sizes) < 2**20
