"""The report, made from a synthetic run folder: generated numbers, hostile text."""

from __future__ import annotations

import html.parser
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mechvrp.circuits import analyse_ablation, compare_with_baselines, default_ks, probe_sweep
from mechvrp.errors import RunFolderError
from mechvrp.store import RunFolder
from mechvrp.study.pictures import small_picture
from mechvrp.study.report import render_report, write_report
from mechvrp.study.report_words import findings
from mechvrp.study.schema import (
    EXAMPLE_COLUMNS,
    DataInfo,
    FusionInfo,
    ModelInfo,
    ModelSection,
    SignalSection,
    Summary,
)
from mechvrp.study.sections import ablation_section, accuracy_rows, probe_section

HOSTILE = "<script>alert(1)</script>"
TASKS = ("counting", "existence", f"spatial {HOSTILE}")
QUESTIONS = (
    f"How many cups? {HOSTILE}",
    'Is there a "red" <b>cat</b>?</script><img src=x onerror=alert(2)>',
    "Où est l'étoile — 左 or right & why {{ 7 * 7 }}?",
)


def synthetic_run(path: Path, *, signal: float = 1.2, models: int = 1, n: int = 300) -> RunFolder:
    """A run folder of generated numbers; ``signal`` is the planted mean difference."""
    run = RunFolder.create(path, {"model": "synthetic", "data": f"data {HOSTILE}", "n": n})
    sections, tables = [], []
    for index in range(models):
        section, table = _synthetic_model(run, f"synthetic-{index} {HOSTILE}", signal, n, index)
        sections.append(section)
        tables.append(table)
    run.write_examples(pd.concat(tables, ignore_index=True))
    summary = Summary(
        title=f"Synthetic study (generated numbers) {HOSTILE}",
        created="2000-01-01T00:00:00+00:00",
        seeds={"data": 0, "split": 0, "bootstrap": 0},
        sections=tuple(sections),
    )
    run.write_summary(summary.to_json())
    return run


def _synthetic_model(
    run: RunFolder, name: str, signal: float, n: int, seed: int
) -> tuple[ModelSection, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(n // 3), 3)
    groups = np.array([f"scene-{i} {HOSTILE}" for i in image])
    tasks = np.array(TASKS)[np.arange(n) % 3]
    correct = rng.random(n) < np.array([0.6, 0.9, 0.7])[np.arange(n) % 3]
    features = rng.normal(size=(4, n, 24)).astype(np.float32)
    for layer in (1, 2, 3):
        features[layer, :, 5] += signal * layer / 2 * correct
    heldout = np.flatnonzero(image % 5 >= 3)
    train = np.flatnonzero(image % 5 < 3)
    predictions = np.where(rng.random(n) < 0.5, "yes", "no")
    probability = rng.uniform(0.4, 1, n)
    sweep = probe_sweep(features, correct, groups, tasks, train, heldout, n_resamples=200)
    comparison = compare_with_baselines(
        sweep, features, correct, groups, tasks, predictions, probability, draws=3
    )
    ks = default_ks(24)
    held = correct[heldout]
    loss = rng.random((21, len(held)))
    outcomes = np.stack(
        [
            [held & (row > k / (24 if draw == 0 else 120)) for k in ks]
            for draw, row in enumerate(loss)
        ]
    )
    site = f"blocks.{sweep.chosen_layer}.hook_resid_post"
    curve = analyse_ablation(
        held, outcomes[0], outcomes[1:], groups[heldout], ks, tasks[heldout],
        units=24, site=site, n_resamples=200, least_draws=1,
    )  # fmt: skip
    splits = np.where(np.isin(np.arange(n), heldout), "heldout", "train")
    scores = np.full(n, np.nan)
    scores[heldout] = sweep.scores
    gallery: list[str | None] = [None] * n
    for i in [*heldout[:8], *train[:2]]:
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        suffix, content = small_picture(Image.fromarray(pixels), 10_000)
        gallery[i] = run.write_gallery_image(f"image-{i}{suffix}", content)
    table = pd.DataFrame(
        {
            "model": name,
            "example": np.arange(n),
            "image_id": groups,
            "task": tasks,
            "split": splits,
            "question": [QUESTIONS[i % 3] for i in range(n)],
            "answer": f"yes {HOSTILE}",
            "prediction": predictions,
            "correct": correct,
            "answer_probability": probability,
            "probe_score": scores,
            "gallery": gallery,
        }
    )
    section = ModelSection(
        model=ModelInfo(name, "synthetic", 4, 24, 12345, "float32", "cpu"),
        data=DataInfo(
            f"generated {HOSTILE}", "test", 0, n, n // 3, len(train), len(set(groups[train])),
            len(heldout), len(set(groups[heldout])), TASKS,
        ),
        label_rule="exact match after lower-casing",
        accuracy=accuracy_rows(correct, tasks, groups, splits, n_resamples=200),
        probe=probe_section(
            comparison,
            site=site,
            site_words=f"residual stream after block {sweep.chosen_layer}, last prompt token",
        ),
        ablation=ablation_section(curve, edit="zeroed at the last prompt position"),
        timings_s={"answers": 12.3, "activations": 4.5, "probes": 1.2, "ablations": 200.0},
        notes=(f"Synthetic numbers {HOSTILE}",),
    )  # fmt: skip
    return section, table


class _Page(html.parser.HTMLParser):
    """Elements with their attributes, and the text of each element name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return synthetic_run(tmp_path_factory.mktemp("runs") / "synthetic", models=2)


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_hostile_text_is_text(page: str) -> None:
    parsed = _Page(page)
    # Three scripts run: plotly.js, the figures' and the browser's. The others hold JSON.
    kinds = [attributes.get("type", "runs") for attributes in parsed.named("script")]
    assert kinds.count("runs") == 3
    assert set(kinds) == {"runs", "application/json"}
    assert not [a for _, a in parsed.elements if any(key.startswith("on") for key in a)]
    assert HOSTILE not in page
    assert "alert(1)" in "".join(parsed.texts["p"])  # it is shown, as the text it is
    assert "{{ 7 * 7 }}" in page  # and no template runs in it
    assert "étoile — 左" in page
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert len(data) >= 8
    assert not any(sign in block for block in data for sign in "<>&")


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    parsed = _Page(page)
    loading = [
        (tag, value)
        for tag, attributes in parsed.elements
        for key, value in attributes.items()
        if key in {"src", "href", "srcset", "data", "action", "poster"}
    ]
    assert all(value.startswith(("data:", "#")) for _, value in loading)
    assert "url(" not in "".join(parsed.texts["style"])
    assert not parsed.named("link")
    policy = next(a["content"] for a in parsed.named("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_page_is_accessible(page: str) -> None:
    parsed = _Page(page)
    assert parsed.named("html")[0]["lang"] == "en"
    assert all(attributes.get("alt") for attributes in parsed.named("img"))
    assert all(a.get("aria-label") for a in parsed.named("div") if "data-figure" in a)
    identities = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(identities) == len(set(identities))
    targets = {a["href"].removeprefix("#") for a in parsed.named("a")}
    assert targets <= set(identities)
    assert len(parsed.named("h1")) == 1


def test_one_section_per_model(page: str) -> None:
    parsed = _Page(page)
    assert {a.get("id") for a in parsed.named("h2")} >= {"overview", "model-1", "model-2"}
    assert page.count("plotly.js v") == 1  # its licence comment: inlined once


def test_report_reads_the_folder_only(run: RunFolder) -> None:
    assert render_report(RunFolder.open(run.path)) == (run.path / "report.html").read_text("utf-8")


def test_planted_signal_is_reported_as_shown(run: RunFolder) -> None:
    section = Summary.from_json(run.read_summary()).sections[0]
    by_text = {finding.text: finding.verdict for finding in findings(section)}
    probe = next(text for text in by_text if text.startswith("A linear probe"))
    assert by_text[probe] == "shown"
    assert "better than chance" in probe
    within = next(
        row
        for row in section.probe.comparison
        if (row.name, row.scope) == ("probe", "within tasks")
    )
    assert f"{within.auroc:.3f}" in probe  # several tasks: within them comes first
    ablation = next(text for text in by_text if text.startswith("Zeroing the"))
    assert by_text[ablation] == "shown"
    against = next(text for text in by_text if text.startswith("Zeroing them"))
    assert by_text[against] == "shown"
    assert "p = 0.048 (no less than 0.048 is possible with 20 draws)" in against


def test_wording_follows_the_interval(run: RunFolder) -> None:
    section = Summary.from_json(run.read_summary()).sections[0]

    def verdict(beginning: str, **changes: float) -> tuple[str, str]:
        first, *others = section.probe.comparison
        rows = (replace(first, **changes), *(replace(row, **changes) for row in others))
        changed = replace(section, probe=replace(section.probe, comparison=rows))
        found = next(f for f in findings(changed) if f.text.startswith(beginning))
        return found.verdict, found.text

    kind, text = verdict("A linear probe", auroc=0.55, low=0.48, high=0.62)
    assert kind == "inconclusive"
    assert "includes chance" in text
    kind, text = verdict("A linear probe", auroc=0.4, low=0.33, high=0.47)
    assert kind == "against"
    kind, text = verdict("Probe minus", lead=0.02, lead_low=-0.03, lead_high=0.07)
    assert kind == "inconclusive"
    assert "+0.020 (95\u00a0% interval −0.030 to +0.070)" in text
    kind, text = verdict("Probe minus", lead=-0.1, lead_low=-0.2, lead_high=-0.01)
    assert kind == "against"


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(1, "inconclusive"), (9, "inconclusive"), (10, None)]
)
def test_few_wrong_answers_show_no_lead(run: RunFolder, wrong: int, verdict: str | None) -> None:
    section = Summary.from_json(run.read_summary()).sections[0]
    tasks = tuple(replace(row, n_right=row.n - wrong) for row in section.probe.tasks)
    accuracy = tuple(
        replace(row, n_right=row.n - wrong) if (row.task, row.split) == ("all", "heldout") else row
        for row in section.accuracy
    )
    fused = FusionInfo(("a", "b"), 100, 0.8, 0.7, 0.9, "a", 0.7, 0.1, 0.05, 0.15, None, None, None)
    for sign, otherwise in ((1, "shown"), (-1, "against")):
        low, high = sorted((0.05 * sign, 0.15 * sign))
        rows = tuple(
            replace(row, lead=0.1 * sign, lead_low=low, lead_high=high) if row.lead is not None
            else replace(row, auroc=0.5 + 0.1 * sign, low=0.5 + low, high=0.5 + high)
            if row.name == "probe" else replace(row, low=0.45, high=0.55)
            for row in section.probe.comparison
        )  # fmt: skip
        changed = replace(
            section,
            accuracy=accuracy,
            probe=replace(section.probe, comparison=rows, tasks=tasks),
            signals=SignalSection((), replace(fused, lead_low=low, lead_high=high), None, 100),
        )
        for beginning in ("A linear probe", "Probe minus", "2 signals that cost"):
            found = [f for f in findings(changed) if f.text.startswith(beginning)]
            assert found
            assert {f.verdict for f in found} == {verdict or otherwise}
            said = f"only {wrong} held-out answer"
            assert all((said in f.text) == (verdict is not None) for f in found)


def test_wording_of_an_ablation_without_effect(run: RunFolder) -> None:
    section = Summary.from_json(run.read_summary()).sections[0]
    points = tuple(
        replace(p, change=-0.5, change_low=-2.0, change_high=1.0, change_q=0.9,
                excess=-0.1, excess_low=-1.5, excess_high=1.2)
        for p in section.ablation.points
    )  # fmt: skip
    changed = replace(section, ablation=replace(section.ablation, points=points))
    found = [f for f in findings(changed) if "zeroing" in f.text.lower()]
    assert [f.verdict for f in found] == ["inconclusive", "inconclusive"]
    assert "not ruled out" in found[0].text
    assert "is not shown" in found[1].text


def test_summary_round_trip_and_errors(run: RunFolder) -> None:
    stored = run.read_summary()
    assert Summary.from_json(stored).to_json() == stored
    with pytest.raises(RunFolderError, match="schema 99"):
        Summary.from_json({**stored, "schema": 99})
    with pytest.raises(RunFolderError, match=r"missing fields \['seeds'\]"):
        Summary.from_json({key: value for key, value in stored.items() if key != "seeds"})
    broken = {**stored, "sections": [{**stored["sections"][0], "accuracy": "much"}]}
    with pytest.raises(RunFolderError, match=r"summary\.sections\[0\]\.accuracy"):
        Summary.from_json(broken)


def test_sections_that_were_not_run(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "part", n=150)
    stored = run.read_summary()
    stored["sections"][0] |= {"probe": None, "ablation": None}
    run.write_summary(stored)
    text = render_report(run)
    assert "layer sweep" not in text
    assert "In plain words" in text


@pytest.mark.parametrize("column", sorted({*EXAMPLE_COLUMNS} - {"source_id"}))  # older runs lack it
def test_missing_column_is_named(tmp_path: Path, run: RunFolder, column: str) -> None:
    other = RunFolder.create(tmp_path / "run", {})
    other.write_summary(run.read_summary())
    other.write_examples(run.read_examples().drop(columns=column))
    with pytest.raises(RunFolderError, match=column):
        render_report(other)


def test_not_shown_is_said_to_have_more_than_one_reason(page: str) -> None:
    closing = re.search(r"“Not shown” is no “no”\.(.*?)Each finding says which\.", page, re.DOTALL)
    assert closing is not None
    for reason in ("includes no effect", "too few answers are of the rarer kind", "a rank test"):
        assert reason in closing[1]
