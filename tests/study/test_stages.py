"""Stages one by one, and what they do with models and data that give nothing to work on."""

from __future__ import annotations

import dataclasses
import json
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mechvrp
from mechvrp.circuits import FittedProbe
from mechvrp.data.images import ImageSource
from mechvrp.errors import DataError, InputError, RunFolderError
from mechvrp.store import Chunks
from mechvrp.study import ModelPlan, StudyPlan, plan_study
from mechvrp.study.coding import decode, plain
from mechvrp.study.reading_pieces import bounded, check_rows
from mechvrp.study.stage_results import ProbeChoice
from tests.support.shuffles import few_shuffles

OPTIONS = {
    "ks": (0, 2, 48),
    "n_resamples": 100,
    "samples": 2,
    "batch_size": 16,
    "progress": False,
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    few_shuffles(monkeypatch)


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava", device="cpu")


def test_the_probe_that_is_kept_knows_its_images():
    probe = FittedProbe(np.zeros(2), np.ones(2), np.ones(2), 0.0, 1.0, ["b", "a"])
    held = plain(dataclasses.asdict(ProbeChoice.of(1, probe)))
    assert decode(ProbeChoice, held, "here").probe.images == {"a", "b"}
    del held["images"]  # as earlier versions wrote it
    assert decode(ProbeChoice, held, "here").probe.images is None


def test_stages_one_by_one_give_what_one_run_gives(model, tmp_path, monkeypatch):
    whole = mechvrp.run_study(model, n=96, out=tmp_path / "whole", **OPTIONS)
    out = tmp_path / "parts"
    with pytest.raises(InputError, match="stages are observe"):
        mechvrp.run_study(model, n=96, out=out, stages=["obsrve"], **OPTIONS)
    assert not out.exists()
    for stage, lacking in (("correlate", "observe before"), ("report", "observe before")):
        with pytest.raises(RunFolderError, match=lacking):
            mechvrp.run_study(model, n=96, out=out, stages=[stage], **OPTIONS)
    mechvrp.run_study(model, n=96, out=out, stages=["observe"], **OPTIONS)
    with pytest.raises(RunFolderError, match="correlate before intervene"):
        mechvrp.run_study(model, n=96, out=out, stages=["intervene"], **OPTIONS)
    monkeypatch.setattr(
        "mechvrp.study.stages.observe_missing", lambda *_: pytest.fail("observed again")
    )
    early = mechvrp.run_study(model, n=96, out=out, stages=["correlate", "report"], **OPTIONS)
    assert early.summary.sections[0].ablation is None
    assert any("has not been run" in note for note in early.summary.sections[0].notes)
    last = mechvrp.run_study(model, n=96, out=out, stages=["intervene"], **OPTIONS)
    assert last.report is None
    again = mechvrp.run_study(model, n=96, out=out, **OPTIONS)
    a, b = (r.summary.sections[0] for r in (whole, again))
    assert (a.accuracy, a.signals, a.probe, a.ablation, a.notes) == (
        b.accuracy,
        b.signals,
        b.probe,
        b.ablation,
        b.notes,
    )
    pd.testing.assert_frame_equal(whole.run.read_examples(), again.run.read_examples())


def test_sampling_follows_its_settings(model, tmp_path):
    options = {**OPTIONS, "samples": 4, "stages": ["observe", "correlate", "report"]}
    narrow, wide = (
        mechvrp.run_study(model, n=40, out=tmp_path / name, **{**options, **setting})
        .run.read_examples()["self_consistency"]
        .to_numpy(dtype=float)
        for name, setting in (
            ("greedy", {"top_p": 1e-6}),  # the nucleus is the most probable token alone
            ("hot", {"temperature": 50.0, "top_p": 1.0}),
        )
    )
    assert (narrow == 1).all()
    # Not lower: samples that are neither yes nor no are one vote in a poll.
    assert wide.mean() < 0.7


def test_probes_and_interventions_on_fewer_examples_say_so(model, tmp_path):
    result = mechvrp.run_study(
        model, n=240, out=tmp_path / "a", probe_examples=160, intervene_examples=30, **OPTIONS
    )
    (section,) = result.summary.sections
    assert any("fitted on 78 of 120 training" in note for note in section.notes) or any(
        "probe_examples 160" in note for note in section.notes
    )
    assert any("intervene_examples 30" in note for note in section.notes)
    assert section.ablation.points[0].n <= 30
    table = result.run.read_examples()
    assert table.probe_score.notna().equals(table.split == "heldout")  # all of them are scored


def test_interventions_read_answers_strictly(model, tmp_path):
    """Under the official reading of POPE a broken answer is a yes, and would hide what an ablation breaks."""
    result = mechvrp.run_study(
        model, split="adversarial", n=120, out=tmp_path / "a", reading="official", **OPTIONS
    )
    (section,) = result.summary.sections
    assert any("read yes/no answers strictly" in note for note in section.notes)
    table = result.run.read_examples()
    held = table[table.split == "heldout"]
    samples = mechvrp.data.load("scenes", split="adversarial", limit=120)
    strict = [
        mechvrp.data.is_correct(samples[int(i)], text, reading="strict")
        for i, text in zip(held.example, held.prediction, strict=True)
    ]
    assert section.ablation.points[0].accuracy == pytest.approx(np.mean(strict))


def test_bounded_takes_whole_images():
    groups = np.array([f"i{i // 6}" for i in range(600)])
    indices = np.arange(0, 600, 1)[: 6 * 50]
    found = bounded(indices, groups, 100, seed=0)
    assert 95 <= len(found) <= 100
    assert set(np.bincount(found // 6)) <= {0, 6}
    assert np.array_equal(found, bounded(indices, groups, 100, seed=0))
    assert not np.array_equal(found, bounded(indices, groups, 100, seed=1))
    assert bounded(indices, groups, 300, seed=0) is indices


def test_pieces_of_other_examples_are_not_taken_for_these(tmp_path):
    """As where an observation was lost and made anew elsewhere, with another answer."""
    pieces = Chunks(tmp_path / "ablate", 4, 2)
    rows = np.array([3, 5, 8, 9])
    for index in range(2):
        pieces.write(index, pd.DataFrame({"example": rows[pieces.rows(index)]}))
    check_rows(pieces, rows)
    with pytest.raises(RunFolderError, match=r"ablate holds other examples.*Remove that folder"):
        check_rows(pieces, np.array([3, 5, 7, 8]))


def test_a_model_of_nan_is_a_gap_beside_a_good_one(model, tmp_path):
    broken = mechvrp.load("tiny-qwen2-vl", device="cpu")
    broken.model.lm_head.weight.data[:] = float("nan")
    result = mechvrp.run_study([broken, model], n=96, out=tmp_path / "both", **OPTIONS)
    bad, good = result.summary.sections
    assert bad.accuracy == ()
    assert any("NaN" in note for note in bad.notes)
    assert good.probe is not None
    page = result.report.read_text()
    assert "tiny-qwen2-vl could not be observed" in page
    assert set(result.run.read_examples()["model"]) == {"tiny-llava"}
    alone = mechvrp.run_study(broken, n=96, out=tmp_path / "alone", **OPTIONS)
    assert "could not be observed" in alone.report.read_text()


def test_one_image_has_no_split_and_is_all_gaps(model, tmp_path):
    first = mechvrp.data.load("scenes", limit=1)[0]
    samples = [
        mechvrp.Sample(first.image, f"Is there a {word}?", "yes", "one", "existence")
        for word in ("zero", "one", "two", "three", "four", "five", "six", "seven") * 3
    ]
    data = mechvrp.Dataset("one", samples)
    result = mechvrp.run_study(model, data, out=tmp_path / "one", **OPTIONS)
    (section,) = result.summary.sections
    assert section.probe is None
    assert section.ablation is None
    assert section.data.n_heldout == 0
    assert all(row.gap for row in section.signals.rows)
    assert "no probe" in result.report.read_text()


def write_folder(root, n, bad):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(root / f"{i}.png")
        rows.append(
            {"image": f"{i}.png", "question": "Is there a two?", "answer": ["yes", "no"][i % 2]}
        )
    for i in bad:
        (root / f"{i}.png").write_bytes(b"not a picture")
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)


def test_bad_records_are_left_out_and_listed(model, tmp_path, capsys, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    write_folder(root, 40, bad=[3, 17])
    result = mechvrp.run_study(
        model, "folder", root=str(root), n=40, out=tmp_path / "run", **{**OPTIONS, "progress": True}
    )
    (section,) = result.summary.sections
    assert (section.data.n, section.data.n_skipped) == (38, 2)
    assert "2 records are left out" in capsys.readouterr().out
    listed = result.run.read_stage("check", "data")["left_out"]
    assert ["decode" in entry["reason"] or "image" in entry["reason"] for entry in listed] == [
        True
    ] * 2
    # Files that have been mended since change nothing: a run goes on with the records that it began with, and
    # decodes none of their images again to find them.
    write_folder(root, 40, bad=[])
    (result.run.path / "summary.json").unlink()
    monkeypatch.setattr(ImageSource, "look", lambda self: pytest.fail("decoded again"))
    again = mechvrp.run_study(
        model, "folder", root=str(root), n=40, out=tmp_path / "run", **OPTIONS
    )
    assert again.summary.sections[0].data == section.data
    monkeypatch.undo()
    bad = tmp_path / "bad"
    bad.mkdir()
    write_folder(bad, 20, bad=range(20))
    options = {**OPTIONS, "root": str(bad), "n": 20, "out": tmp_path / "x", "stages": ["observe"]}
    with pytest.raises(DataError, match="no record of folder can be used: metadata.csv line 2"):
        mechvrp.run_study(model, "folder", **options)
    write_folder(bad, 20, bad=[])
    mechvrp.run_study(model, "folder", **options)  # once they are mended it begins


def test_of_two_records_of_one_name_the_bad_one_is_left_out(model, tmp_path):
    """As of two folders joined, whose tables are both called metadata.csv."""
    samples = []
    for name, bad in (("a", [3]), ("b", [])):
        (tmp_path / name).mkdir()
        write_folder(tmp_path / name, 10, bad=bad)
        samples += list(mechvrp.data.load("folder", root=tmp_path / name, verify_images=False))
    assert samples[3].record == samples[13].record
    data = mechvrp.Dataset("both", samples)
    run = mechvrp.run_study(model, data, out=tmp_path / "run", stages=["observe"], **OPTIONS).run
    assert [entry["index"] for entry in run.read_stage("check", "data")["left_out"]] == [3]


def test_a_run_goes_on_with_the_same_weights_and_records_only(model, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    write_folder(root, 40, bad=[])
    options = {**OPTIONS, "n": 40, "root": str(root), "out": tmp_path / "run"}
    mechvrp.run_study("tiny-llava", "folder", stages=["observe"], **options)
    table = pd.read_csv(root / "metadata.csv")
    table.assign(answer=table["answer"].iloc[::-1].to_numpy()).to_csv(
        root / "metadata.csv", index=False
    )
    with pytest.raises(RunFolderError, match="other records of folder"):
        mechvrp.run_study("tiny-llava", "folder", **options)
    table.to_csv(root / "metadata.csv", index=False)
    noted = tmp_path / "run/stages/check/0-tiny-llava.json"
    was = noted.read_text()
    noted.write_text('{"fingerprint": "another"}')
    with pytest.raises(RunFolderError, match="begun with another tiny-llava"):
        mechvrp.run_study("tiny-llava", "folder", stages=["correlate", "intervene"], **options)
    other = json.loads(was)
    other["processor"] |= {"image_processor.resample": "2", "of another version": "true"}
    noted.write_text(json.dumps({**json.loads(was), "processor": ["damaged"]}))
    with pytest.raises(RunFolderError, match="damaged: its processor is"):
        mechvrp.run_study("tiny-llava", "folder", stages=["correlate", "intervene"], **options)
    gone = json.loads(was)
    gone["processor"]["chat_template"] = "0123"
    noted.write_text(json.dumps(gone))
    with pytest.raises(RunFolderError, match=r"differ: chat_template \(0123, now "):
        mechvrp.run_study("tiny-llava", "folder", stages=["correlate", "intervene"], **options)
    noted.write_text(json.dumps(other))
    with pytest.raises(
        RunFolderError, match=r"another processor .* differ: \S+resample \(2, now 3\)\. Restore"
    ):
        mechvrp.run_study("tiny-llava", "folder", stages=["correlate", "intervene"], **options)
    noted.write_text(was)


def test_a_picture_that_cannot_be_read_is_not_kept_as_a_gap(model, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    write_folder(root, 40, bad=[])
    options = {**OPTIONS, "n": 40, "root": str(root), "out": tmp_path / "run"}
    mechvrp.run_study("tiny-llava", "folder", stages=["observe", "correlate"], **options)
    pictures = {path: path.read_bytes() for path in root.glob("*.png")}
    for path in pictures:
        path.write_bytes(b"nothing")
    with pytest.raises((DataError, RunFolderError)):
        mechvrp.run_study("tiny-llava", "folder", stages=["intervene"], **options)
    for path, data in pictures.items():
        path.write_bytes(data)
    result = mechvrp.run_study("tiny-llava", "folder", **options)
    assert not any("decode" in note for note in result.summary.sections[0].notes)


def test_a_stage_with_nothing_to_do_leaves_the_report(model, tmp_path):
    options = {**OPTIONS, "n": 96, "out": tmp_path / "run"}
    mechvrp.run_study(model, stages=["observe", "correlate", "report"], **options)
    mechvrp.run_study(model, stages=["observe"], **options)
    assert (tmp_path / "run/report.html").is_file()
    mechvrp.run_study(model, stages=["intervene"], **options)
    assert not (tmp_path / "run/report.html").is_file()


def test_a_question_that_spells_the_placeholder_is_left_out(model, tmp_path):
    scenes = mechvrp.data.load("scenes", limit=60)
    first = scenes[0]
    odd = mechvrp.Sample(first.image, "What is <image>?", "yes", first.image_id, "existence")
    data = mechvrp.Dataset("odd", [odd, *scenes])
    result = mechvrp.run_study(model, data, out=tmp_path / "run", stages=["observe"], **OPTIONS)
    (entry,) = result.run.read_stage("check", "data")["left_out"]
    assert entry["index"] == 0
    assert "stands for an image" in entry["reason"]


def test_a_plan_estimates_and_writes_nothing(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_study(model, n=400, **{**OPTIONS, "batch_size": 12})
    assert plan.n == 400
    assert plan.measured == (24, 48)
    (found,) = plan.models
    assert set(found.seconds) == {"observe", "correlate", "intervene"}
    assert min(found.seconds.values()) > 0
    assert found.memory > 100 * 2**20
    assert 1e5 < found.disk < 1e8
    assert "tiny-llava" in str(plan)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="just run the study"):
        plan_study(model, n=40, **OPTIONS)
    more = plan_study(model, n=4000, **{**OPTIONS, "batch_size": 12})
    assert more.models[0].disk > 5 * found.disk


def test_a_plan_says_what_workers_change():
    part = ModelPlan("m", {"observe": 700.0, "correlate": 100.0, "intervene": 100.0}, 10, 0, 1)
    plan = StudyPlan(100, (24, 48), (part,), 1000, 1000)
    assert "workers" not in str(plan)
    on_cpu = replace(plan, workers=2)
    assert "with 2 workers on one machine's processors" in str(on_cpu)
    assert "the time is about the same" in str(on_cpu)
    assert "at most 20 B of memory" in str(on_cpu)
    on_gpus = replace(on_cpu, models=(replace(part, device_memory=10),), workers=8)
    # 900 s, of which 800 are shared by eight.
    assert "with 8 workers, each with such a device of its own: 3 min at best" in str(on_gpus)


def test_what_one_of_the_models_refuses_is_left_out_for_all(tmp_path, monkeypatch):
    """A banner of 400 x 1 pixels is nothing to LLaVA, and too long for Qwen2-VL."""
    loaded, held = [], []

    def load(name, **options):
        assert not any(model() for model in held), "two models are in memory"
        loaded.append(name)
        held.append(weakref.ref(model := mechvrp.load(name, **options)))
        return model

    monkeypatch.setattr("mechvrp.study.engines.local.load", load)
    scenes = mechvrp.data.load("scenes", limit=60)
    first = scenes[0]
    banner = mechvrp.Sample(Image.new("RGB", (400, 1)), first.question, "yes", "b", "existence")
    essay = mechvrp.Sample(first.image, "is there a three " * 2500, "yes", "e", "existence")
    data = mechvrp.Dataset("odd", [banner, *scenes, essay])
    names = ["tiny-llava", "tiny-qwen2-vl"]
    result = mechvrp.run_study(names, data, out=tmp_path / "run", stages=["observe"], **OPTIONS)
    one, other = result.run.read_stage("check", "data")["left_out"]
    assert (one["index"], other["index"]) == (0, 61)
    assert "the processor of tiny-qwen2-vl refuses" in one["reason"]
    assert "aspect ratio" in one["reason"]
    assert "tiny-llava" not in one["reason"]
    for name in names:
        assert f"{name} takes 512" in other["reason"]
    assert loaded == [*reversed(names), names[1]]  # the first stays, since it is used next
    for pieces in result.run.written_chunks("observe").values():
        assert len(pieces.table(["correct"])["correct"]) == 60


def test_a_width_that_a_later_model_lacks_is_refused_before_compute(model, tmp_path, monkeypatch):
    narrow = mechvrp.load("tiny-qwen2-vl")
    monkeypatch.setattr(narrow, "d_model", 40)
    with pytest.raises(InputError, match="k = 48 is more than the 40 dimensions of tiny-qwen2-vl"):
        mechvrp.run_study([model, narrow], n=60, out=tmp_path / "run", **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_a_second_model_that_is_not_there_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="no model named 'tiny-lava'"):
        mechvrp.run_study(["tiny-llava", "tiny-lava"], n=60, out=tmp_path / "run", **OPTIONS)
    assert not list(tmp_path.iterdir())
