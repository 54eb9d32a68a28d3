"""What the README and CONTRIBUTING show runs as written."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.support.shuffles import few_shuffles

ROOT = Path(__file__).parent.parent


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_s_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few_shuffles(monkeypatch)
    # nnsight reads a trace's source from its file, so the examples are run from one.
    script = tmp_path / "readme.py"
    text = "\n".join(blocks("README.md", "python"))
    # As written, on fewer examples: these two take most of the time.
    for large, small in (
        (", limit=600)", ", limit=150)"),
        ('out="runs/first")', 'out="runs/first", n=150)'),
    ):
        assert text.count(large) == 1
        text = text.replace(large, small)
    script.write_text(text)
    scope: dict = {"__name__": "readme", "__file__": str(script)}
    exec(compile(script.read_text(), str(script), "exec"), scope)
    batch, model = scope["batch"], scope["model"]
    assert scope["h"].shape == (8, batch.tokens.length, model.d_model)
    assert scope["logits"].shape == (8, batch.tokens.length, model.d_vocab)
    assert scope["patched"].shape == (8, model.d_vocab)
    assert scope["acts"].n_examples == 60
    assert scope["proof"].n == len(scope["pairs"]) > 1
    assert not scope["proof"].seen
    assert scope["curve"].draws == 9
    assert scope["found"].answer in ("yes", "no")
    assert 0 < scope["found"].reliability < 1
    assert scope["found"].abstain
    assert scope["monitor"].guarantee in str(scope["monitor"])


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_and_files_that_are_named_exist(name):
    text = (ROOT / name).read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)`", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"`((?:mechvrp|benchmarks|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / path).exists(), path


def test_the_hallucination_is_traced_to_a_digit(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("hallucination", ROOT / "docs/hallucination.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.DRAWS = 5
    page = tmp_path / "page.html"
    script.main(out=page, images=5, seed=0)
    told = capsys.readouterr().out
    assert "Right: no." in told
    text = page.read_text()
    assert text.count("Plotly.newPlot") == 3
    for step in ("Causal trace", "Attention:", "Blanking the", "Neurons at", "Zeroing the"):
        assert step in told, step
        assert step in text, step


@pytest.fixture
def circuit_docs(monkeypatch):
    """The scripts of docs/circuits, importable by name."""
    monkeypatch.syspath_prepend(str(ROOT / "docs/circuits"))
    names = ("study", "one_model", "across", "chance", "margins", "telling", "keeping")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_case_study_of_circuits_writes_its_folder(circuit_docs, tmp_path, capsys):
    study = circuit_docs("study")
    sizes = replace(
        study.QUICK, find=3, prove=4, scenes=12, draws=3, retest_draws=2, curve_draws=1, ranked=100,
        asked=60, ablated=12, steps=(0.5,), flow=12, resamples=50,
    )  # fmt: skip
    (one,) = study.run(study.checkpoints_of(["tiny-llava"]), sizes, out=tmp_path)
    told = capsys.readouterr().out
    held = json.loads((tmp_path / "results.json").read_text())["checkpoints"]["tiny-llava"]
    assert len(held["told"]) > 10
    for text in held["told"]:
        assert text in told
    # What is not there is a gap, told in words; so few scenes are too few for the flow's probe alone.
    assert set(one.gaps) == {"image flow, by a probe"}
    assert one.gaps["image flow, by a probe"] in told
    assert set(one.shares) == {
        "existence", "hallucinated", "existence circuit on hallucinated answers",
        "hallucinated circuit on existence answers",
    }  # fmt: skip
    assert set(one.curves) == {"MLP neurons", "residual dimensions"}
    page = (tmp_path / "page.html").read_text()
    assert "A gap:" in page
    assert page.count("Plotly.newPlot") >= len(one.plots) >= 7
    assert (tmp_path / "tiny-llava/circuit-hallucinated.json").exists()

    study.run(study.checkpoints_of(["tiny-llava"]), sizes, out=tmp_path)
    assert "kept from before" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().count("Plotly.newPlot") >= len(one.plots)


def test_the_figures_that_the_case_study_of_circuits_quotes_are_those_of_its_run(circuit_docs):
    telling, folder = circuit_docs("telling"), ROOT / "docs/circuits"
    text = (folder / "README.md").read_text().replace("\u2212", "-")
    results = json.loads((folder / "results.json").read_text())
    differences = pd.read_csv(folder / "differences.csv")
    # The tables of all figures are the run's, cell by cell.
    seeds = (folder / "seeds.md").read_text()
    for name, table in telling.pages(results).items():
        assert table in (text if name == "embedded" else seeds), name
    margins, changes = pd.read_csv(folder / "margins.csv"), circuit_docs("margins")
    embedded = [name for name, one in results["checkpoints"].items() if name == one["family"]]
    assert changes.markdown(margins, embedded) in text
    # Every number with an interval in the text is one of the run's figures or differences.
    rows = [row for one in results["checkpoints"].values() for row in one["figures"]]
    known = {telling.told(row) for row in rows}
    known |= {telling.told(row, sign=True) for row in differences.to_dict("records")}
    known |= {changes.told(row).split(";")[0] for row in margins.to_dict("records")}
    over_draws = set()
    for path in folder.glob("*/*.csv"):
        table = pd.read_csv(path)
        if {"control", "control_low", "control_high"} <= set(table):  # of permuted labels a range
            ends = table[["control", "control_low", "control_high"]].to_numpy(float).tolist()
            over_draws |= {"{:.2f} ({:.2f} to {:.2f})".format(*row) for row in ends}
        if {"value", "low", "high"} <= set(table) and "figure" in table:
            known |= {telling.told(row) for row in table.to_dict("records")}
        elif {"value", "value_low", "value_high"} <= set(table):
            ends = table.rename(columns={"value_low": "low", "value_high": "high"})
            known |= {
                telling.told(row | {"figure": row["what"]}) for row in ends.to_dict("records")
            }
    # ..., and so is every p and q.
    tests = [row["p"] for row in rows if row["p"] is not None]
    tests += differences["p"].tolist() + differences["q"].tolist()
    tests += [
        p for name in ("p", "q") for p in margins.filter(regex=f"^{name}_").to_numpy().ravel()
    ]
    quoted = re.findall(r"[-+]?[\d.]+(?: %| pp)? \[[^\]]*\d\]", text)
    assert len(quoted) > 20
    assert set(quoted) <= known, sorted(set(quoted) - known)
    for value in re.findall(r"[pq] = ([\d.]*\d)", text):
        assert any(value == f"{one:.3f}" for one in tests), value
    # What is said of families is a mean over seeds and its range.
    families = pd.read_csv(folder / "families.csv")
    over_seeds = {
        f"{row[f'{side}_mean']:.2f} ({row[f'{side}_low']:.2f} to {row[f'{side}_high']:.2f})"
        for row in families.to_dict("records")
        for side in ("first", "second")
    }
    quoted = re.findall(r"-?\d\.\d\d \(-?\d\.\d\d to -?\d\.\d\d\)", text)
    assert len(quoted) > 5
    assert set(quoted) <= over_seeds | over_draws, sorted(set(quoted) - over_seeds - over_draws)
    # What chance gives is in results.json.
    chance = results["by_chance"]["families"]
    for digits, figure in (("{:.1f}", "mean"), ("{:.0%}", "share"), ("{}", "comparisons")):
        for part in ("all", "distinct"):
            assert digits.format(chance[part][figure]).replace("%", " %") in text, (part, figure)
    for name, value in re.findall(
        r"\b(seed|find|prove|scenes|draws|asked|ablated|ranked|flow) (\d+)", text
    ):
        wanted = results["seed"] if name == "seed" else results["sizes"][name]
        assert int(value) == wanted, name


def test_the_circuits_that_the_case_study_keeps_are_of_these_checkpoints():
    from mechvrp.circuits import Circuit

    folder = ROOT / "docs/circuits"
    checkpoints = json.loads((folder / "results.json").read_text())["checkpoints"]
    for name, one in checkpoints.items():
        paths = sorted((folder / name).glob("circuit-*.json"))
        assert len(paths) >= 2
        for path in paths:
            circuit = Circuit.load(path)
            assert (circuit.model, circuit.fingerprint) == (name, one["fingerprint"])
