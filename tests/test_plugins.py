"""Other packages' families, datasets and signals: one file and one registration, through entry points."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import mechvrp
from mechvrp import plugins
from mechvrp.data import registry
from mechvrp.errors import DataError, InputError
from mechvrp.models import families
from mechvrp.reliability import registered

ROOT = Path(__file__).parents[1]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Puts a distribution with modules and entry points on the path."""
    before, added = families.families(), dict(registry._REGISTERED)
    signals = dict(registered._REGISTERED)
    names: list[str] = []

    def make(files: dict[str, str], entries: str) -> None:
        info = tmp_path / "third_party-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
        for name, text in files.items():
            (tmp_path / name).write_text(text)
            names.append(name.removesuffix(".py"))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(plugins, "_loaded", set())

    yield make
    families._FAMILIES.clear()
    families._FAMILIES.update(before)
    registry._REGISTERED.clear()
    registry._REGISTERED.update(added)
    registered._REGISTERED.clear()
    registered._REGISTERED.update(signals)
    for name in names:
        sys.modules.pop(name, None)


def entry_points() -> str:
    """The tables of CONTRIBUTING's pyproject example, as a distribution has them."""
    import tomllib

    (example,) = blocks("toml")
    groups = tomllib.loads(example)["project"]["entry-points"]
    return "\n".join(
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in entries.items())
        for group, entries in groups.items()
    )


def test_contributing_s_package_adds_a_family_a_dataset_and_a_signal(distribution):
    family, dataset, signal = blocks("python")
    files = {"my_vlm.py": family, "my_data.py": dataset, "my_signal.py": signal}
    distribution(files, entry_points())
    found = mechvrp.models.known_families()["my_vlm"]
    assert found.prompt(None, "Q?", task="vqa", instruction="") == "<image>\nQ?"
    assert "my-data" in {info.name for info in mechvrp.data.available()}
    loaded = mechvrp.data.load("my-data", limit=2)
    assert [sample.answer for sample in loaded] == ["yes", "no"]
    assert mechvrp.reliability.registered_signals()["question_words"].unit == "words"
    assert mechvrp.reliability.measure_signal("question_words", None, loaded, None).tolist() == [
        3,
        3,
    ]


def test_a_plugin_that_fails_is_named_and_hides_no_other(distribution):
    family, *_ = blocks("python")
    entries = (
        "[mechvrp.families]\na-broken = nowhere_to_be_found:register\nb-fine = my_vlm:register\n"
    )
    distribution({"my_vlm.py": family}, entries)
    with pytest.warns(UserWarning, match="'a-broken' of third-party .*nowhere_to_be_found") as seen:
        known = mechvrp.models.known_families()
    assert len(seen) == 1
    assert "my_vlm" in known
    assert mechvrp.models.known_families() == known  # once only


def test_plugins_are_not_looked_for_at_import():
    import subprocess

    code = "import mechvrp.models, mechvrp.data, mechvrp.plugins as p; assert not p._loaded"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_dataset_s_name_is_taken_once():
    info = mechvrp.data.available()[0]
    with pytest.raises(DataError, match="replace=True"):
        mechvrp.data.register_dataset(info, lambda **_: None)


def test_a_dataset_s_loader_takes_and_gives_what_is_asked(distribution):
    distribution({}, "")
    info = mechvrp.data.DatasetInfo("mine", "a test", splits=(), tasks=(), root="")
    with pytest.raises(DataError, match="'mine' takes no limit, seed"):
        mechvrp.data.register_dataset(info, lambda split=None: None)
    sample = mechvrp.data.load("scenes", limit=1)[0]
    for given in ([sample], mechvrp.data.Dataset("mine", [sample, sample])):
        mechvrp.data.register_dataset(info, lambda *, given=given, **_: given, replace=True)
        with pytest.raises(DataError, match="gave .*, not a mechvrp.data.Dataset of at most 1"):
            mechvrp.data.load("mine", limit=1)


def test_a_family_says_what_it_is_of(distribution):
    distribution({}, "")
    family = type(families._FAMILIES["llava"])

    class Slip(family):
        model_types = "my_vlm"  # the comma of a tuple of one is easily left out

    with pytest.raises(InputError, match="a tuple of config.model_type"):
        mechvrp.models.register_family(Slip())
    assert "m" not in mechvrp.models.known_families()
