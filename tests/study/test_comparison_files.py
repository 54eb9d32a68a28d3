"""A comparison as files: the page, its tables, where they may be written, hostile names."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mechvrp.errors import RunFolderError
from mechvrp.statistics import point_biserial_interval
from mechvrp.store.places import place
from mechvrp.study.compare_report import check_out
from mechvrp.study.compare_tables import latex_text
from mechvrp.study.comparing import RunComparison, compare_runs
from tests.support.shuffles import few_shuffles
from tests.support.studies import (
    causal_row,
    causal_section,
    examples,
    figure_of,
    row_of,
    run,
    section,
    write_run,
)

HOSTILE = r"<script>alert(1)</script> 100%_a&b \input{x} $y^2$ ~#[1]"
FAST = {"n_resamples": 200}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> RunComparison:
    return compare_runs([run(tmp_path_factory.mktemp("two") / "run", "a", "b", tasks=2)], **FAST)


def test_what_may_not_be_looked_at_above_is_no_run_folder(monkeypatch):
    """As a bucket of which one may see a part only."""
    from fsspec.implementations.memory import MemoryFileSystem

    info, seen = MemoryFileSystem.info, "bucket/team/"

    def guarded(self, path, **options):
        if not path.lstrip("/").startswith(seen):
            raise PermissionError("Forbidden")
        return info(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "info", guarded)
    assert check_out(place("memory://bucket/team/compared")) == []
    (place("memory://bucket/team/r") / "config.json").write_text("{}")
    (place("memory://bucket/team/r") / "versions.json").write_text("{}")
    with pytest.raises(RunFolderError, match="lies in a run folder"):
        check_out(place("memory://bucket/team/r/compared"))
    with pytest.raises(RunFolderError, match="Forbidden"):
        check_out(place("memory://bucket/other"))


def test_where_it_may_be_written(tmp_path):
    path = run(tmp_path / "r", "a")
    for bad in (path, path / "sub"):
        with pytest.raises(RunFolderError, match="run folder"):
            compare_runs([path], out=bad, **FAST)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds no comparison"):
        compare_runs([path], out=foreign, **FAST)
    out = tmp_path / "out"
    found = compare_runs([path], out=out, **FAST)
    before = (out / "compare.html").read_bytes()
    found.write(out)
    assert (out / "compare.html").read_bytes() == before
    (out / "mine.txt").write_text("mine")
    marker = json.loads((out / "comparison.json").read_text())
    assert marker["units"][0]["model"] == "a"
    found.write(out)
    assert (out / "mine.txt").read_text() == "mine"
    marker["files"] = ["../r/summary.json"]  # a marker must not lead to other files
    (out / "comparison.json").write_text(json.dumps(marker))
    with pytest.raises(RunFolderError):
        found.write(out)
    assert (path / "summary.json").exists()


def test_files_of_others_are_not_written_over(tmp_path):
    found = compare_runs([run(tmp_path / "r", "a")], out=tmp_path / "out", **FAST)
    marker = json.loads((tmp_path / "out" / "comparison.json").read_text())
    marker["files"] = [n for n in marker["files"] if n != "tables/cost.csv"]
    (tmp_path / "out" / "comparison.json").write_text(json.dumps(marker))
    with pytest.raises(RunFolderError, match="tables/cost.csv"):
        found.write(tmp_path / "out")


def test_tables_that_lead_elsewhere_are_not_written_through(tmp_path):
    found = compare_runs([run(tmp_path / "r", "a")], out=tmp_path / "out", **FAST)
    (tmp_path / "out" / "tables").rename(tmp_path / "mine")
    (tmp_path / "out" / "tables").symlink_to(tmp_path / "mine")
    with pytest.raises(RunFolderError, match="tables is a link that leaves the folder"):
        found.write(tmp_path / "out")


def test_the_same_comparison_gives_the_same_files(tmp_path):
    path = run(tmp_path / "r", "a", "b")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        compare_runs([path], out=out, **FAST)
    names = sorted(p.relative_to(outs[0]) for p in outs[0].rglob("*") if p.is_file())
    assert len(names) == 16  # the page, its marker and seven tables in two forms
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name


class _Elements(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_hostile_names_are_text(tmp_path):
    pairs = []
    for i in range(2):
        table = examples(f"{HOSTILE} {i}", seed=i)
        table["task"] = HOSTILE
        table["image_id"] = table["image_id"] + HOSTILE
        causal = causal_section()
        causal = replace(causal, rows=(*causal.rows, causal_row("image patches", HOSTILE, -1.0)))
        own = section(table, family=HOSTILE, data=HOSTILE, split=HOSTILE, rule=HOSTILE)
        pairs.append((replace(own, causal=causal, notes=(HOSTILE,)), table))
    path = write_run(tmp_path / "r", *pairs)
    found = compare_runs([path], out=tmp_path / "out", training_seeds={HOSTILE: [
        f"{HOSTILE} 0", f"{HOSTILE} 1"]}, **FAST)  # fmt: skip
    page = _Elements()
    page.feed(found.to_html())
    scripts = [attrs for tag, attrs in page.found if tag == "script"]
    plain = [attrs for attrs in scripts if attrs.get("type") != "application/json"]
    assert len(plain) == 2  # plotly's and ours
    assert not any(name.startswith("on") for _, attrs in page.found for name in attrs)
    for name in found.tables():
        text = (tmp_path / "out" / "tables" / f"{name}.tex").read_text()
        assert_latex_is_sound(text, columns=len(found.text_tables()[name][0].head))
        frame = pd.read_csv(tmp_path / "out" / "tables" / f"{name}.csv")
        assert len(frame) == len(found.tables()[name])
        if "model" in frame:
            assert set(frame["model"]) == {f"{HOSTILE} 0", f"{HOSTILE} 1"}


def test_names_that_turn_their_line_are_isolated(tmp_path):
    arabic = "\u0646\u0645\u0648\u0630\u062c"
    pairs = []
    for i in range(2):
        table = examples(f"{arabic} {i}", seed=i)
        pairs.append((replace(section(table, data=arabic), causal=causal_section()), table))
    path = write_run(tmp_path / "r", *pairs)
    page = compare_runs([path], **FAST).to_html()
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    loose = re.sub(r"<bdi>[^<]*</bdi>|\u2068[^\u2069<]*\u2069", "", body)
    assert arabic in body
    assert arabic not in loose, loose[loose.index(arabic) - 200 :][:400]


def assert_latex_is_sound(text: str, columns: int) -> None:
    """Braces balance, each row has its cells, and every command is one that we write."""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[{}$&#%_]", "", body)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not set('#%^_<>|"') & set(bare.replace("$^2$", ""))
    commands = set(re.findall(r"\\([A-Za-z]+)", bare))
    assert commands <= {
        "begin", "end", "caption", "toprule", "midrule", "endhead", "bottomrule", "endfoot", "item",
        "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar",
        "textquotedbl", "textasciigrave",
    }  # fmt: skip
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and "caption" not in line]
    assert rows
    for line in rows:
        assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line


def test_latex_escapes_every_special_sign():
    assert latex_text("a_b & 5% {x} #1 $y ^ ~") == (
        r"a\_b \& 5\% \{x\} \#1 \$y \textasciicircum{} \textasciitilde{}"
    )
    assert latex_text("\\input\n\x07−1\u00a0pp") == r"\textbackslash{}input  $-$1~pp"


def test_csv_and_latex_alone(two, tmp_path):
    csv, tex = two.to_csv(tmp_path / "csv"), two.to_latex(tmp_path / "tex")
    assert [p.stem for p in csv] == [p.stem for p in tex] == list(two.tables())
    read = pd.read_csv(tmp_path / "csv" / "structure.csv")
    assert np.allclose(read["value"], two.structure["value"].astype(float), equal_nan=True)
    assert "booktabs" in (tmp_path / "tex" / "structure.tex").read_text()


def test_figures_are_there_for_what_was_measured(two):
    (own,) = two.figures().values()
    assert set(own) == {
        "accuracy", "signals_R", "signals_AUROC", "layers", "ablations", "changes", "cost",
    }  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    import mechvrp

    folder = tmp_path_factory.mktemp("real") / "run"
    models = [mechvrp.load(name) for name in ("tiny-llava", "tiny-qwen2-vl")]
    with pytest.MonkeyPatch.context() as patch:
        few_shuffles(patch)
        mechvrp.run_study(
            models,
            "scenes",
            n=48,
            samples=3,
            ks=(0, 2),
            n_resamples=100,
            out=folder,
            progress=False,
        )
    return folder


def test_a_real_study_end_to_end(real, tmp_path):
    found = compare_runs([real], out=tmp_path / "out", n_resamples=100)
    assert {u.family for u in found.units} == {"llava", "qwen2-vl"}
    table = found.units[0].examples
    pooled = row_of(found, "answer_probability", "R")
    own = [
        point_biserial_interval(
            u.examples["answer_probability"], u.examples["correct"], n_resamples=100
        ).value
        for u in found.units
    ]
    assert pooled["stratified"] == pytest.approx(np.mean(own))
    assert pooled["n_shared"] == table["image_id"].nunique()
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "tiny-llava" in page
    assert "http://" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert figure_of(found.accuracy, "tiny-llava", "all")["n"] == 48


def test_a_comparison_at_an_address(bucket, two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = two.write(f"{bucket}/compared")
    assert two.write(f"{bucket}/compared") == page  # over an earlier one
    two.write(tmp_path / "here")
    for file in ("compare.html", "comparison.json", "tables/cost.csv", "tables/cost.tex"):
        assert (page.parent / file).read_bytes() == (tmp_path / "here" / file).read_bytes()
    assert {path.name for path in two.to_csv(f"{bucket}/csv")} == {
        f"{name}.csv" for name in two.tables()
    }
    (page.parent / "notes.txt").write_text("mine")
    (page.parent / "comparison.json").unlink()
    with pytest.raises(RunFolderError, match="holds no comparison"):
        two.write(f"{bucket}/compared")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]
