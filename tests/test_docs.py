"""What the README and CONTRIBUTING show runs as written."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_s_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # nnsight reads a trace's source from its file, so the examples are run from one.
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks("README.md", "python")))
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


def test_contributing_s_family_is_accepted():
    from mechvrp.models import families

    before = families.families()
    try:
        (example,) = blocks("CONTRIBUTING.md", "python")
        exec(example, {})
        family = families.families()["my_vlm"]
        assert family.prompt(None, "Q?", task="vqa", instruction="") == "<image>\nQ?"
    finally:
        families._FAMILIES.clear()
        families._FAMILIES.update(before)


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


def test_the_case_study_of_circuits_writes_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "docs/circuits"))
    for name in ("study", "one_model", "across", "telling"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    study = importlib.import_module("study")
    sizes = replace(
        study.QUICK, find=2, prove=3, scenes=12, draws=3, curve_draws=1, ranked=120, asked=60,
        ablated=12, flow=12, steps=(0.5,), resamples=50,
    )  # fmt: skip
    found = study.run(["tiny-llava"], sizes, out=tmp_path)
    (one,) = found
    told = capsys.readouterr().out
    held = json.loads((tmp_path / "results.json").read_text())["models"]["tiny-llava"]
    assert held["told"] == study.words_of(one)
    for text in held["told"]:
        assert text in told
    # What is not there is a gap, told in words; nothing is left out in silence.
    assert set(one.proofs) == {
        "existence", "hallucinated", "existence circuit on hallucinated answers",
        "hallucinated circuit on existence answers",
    } or one.gaps  # fmt: skip
    assert set(one.curves) == {"MLP neurons", "residual dimensions"} or one.gaps
    page = (tmp_path / "page.html").read_text()
    for why in one.gaps.values():
        assert "A gap:" in page
        assert why in told
    assert page.count("Plotly.newPlot") >= len(one.figures) > 3

    # A model beside itself: no figure of the two differs, and none is said to.
    other = replace(one, name="its double")
    table, _ = study.differences([one, other], seed=0, resamples=50)
    assert {"polls answered rightly, percentage points"} < set(table["figure"])
    paired = table[
        ~table["figure"].str.startswith("bottleneck")
    ]  # whose random sets are each curve's own
    assert paired["difference"].abs().max() == pytest.approx(0, abs=1e-9)
    assert not table["told"].any()
    assert isinstance(table, pd.DataFrame)
