"""The further training seeds in checkpoints/: a folder each, as measured, and loaded as any other."""

import json
import re
from pathlib import Path

import pytest

import mechvrp
from mechvrp.data import is_correct
from mechvrp.models import fingerprint
from mechvrp.reliability import greedy_answers

ROOT = Path(__file__).parents[2] / "checkpoints"
FOLDERS = sorted(path for path in ROOT.iterdir() if path.is_dir())

each = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def test_each_has_its_row_and_no_row_is_without_a_folder():
    rows = re.findall(r"^\| `([\w-]+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == [path.name for path in FOLDERS]


@each
def test_its_row_is_what_was_measured(folder):
    training = json.loads((folder / "training.json").read_text())
    assert folder.name == f"{training['family']}-seed{training['recipe']['seed']}"
    (row,) = re.findall(
        rf"^\| `{folder.name}` \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    tasks = ("mixed", "existence", "identification", "counting", "spatial")
    measured = [f"{training['measured'][task]['accuracy']:.3f}" for task in tasks]
    assert row.split(" | ") == measured


@each
def test_it_is_loaded_as_any_folder_and_answers(folder):
    model = mechvrp.load(folder, device="cpu")
    embedded = mechvrp.load(folder.name.partition("-seed")[0], device="cpu")
    assert model.family.name == embedded.family.name
    assert fingerprint(model) != fingerprint(embedded)
    samples = mechvrp.data.load("scenes", task="existence", limit=40, seed=11)
    said = greedy_answers(model, samples)
    assert sum(map(is_correct, samples, (one.text for one in said))) >= 30
