"""Datasets by name: what there is, and what a wrong call is told."""

import importlib
import inspect
import subprocess
import sys

import pytest

import mechvrp.data
from mechvrp.data import registry
from mechvrp.errors import DataError


def test_available_describes_every_dataset():
    infos = mechvrp.data.available()
    assert [info.name for info in infos] == ["folder", "pope", "scenes", "scenes-sizes"]
    assert all(info.description and "\n" not in info.description for info in infos)
    assert [info.root == "" for info in infos] == [False, False, True, True]


def test_the_descriptions_agree_with_the_loaders():
    pope = importlib.import_module("mechvrp.data.pope")
    scenes = importlib.import_module("mechvrp.data.scenes")
    infos = {info.name: info for info in mechvrp.data.available()}
    assert infos["pope"].splits == pope.SPLITS
    for name in ("scenes", "scenes-sizes"):
        assert set(infos[name].splits) == set(scenes.SPLITS)
    for info, module, function in registry._LOADERS.values():
        parameters = inspect.signature(
            getattr(importlib.import_module(module), function)
        ).parameters
        assert ("root" in parameters) == bool(info.root)
        assert {"split", "limit", "seed"} <= set(parameters)


def test_scenes_load_by_name_and_are_scored_by_their_own_answers():
    dataset = mechvrp.data.load("scenes", limit=30, seed=3)
    assert len(dataset) == 30
    assert all(mechvrp.data.is_correct(s, s.answer, reading="strict") for s in dataset)
    assert dataset.check() == ()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("popes", {}, "did you mean 'pope'"),
        ("POPE", {}, "did you mean 'pope'"),
        ("imagenet", {}, "The datasets are folder, pope, scenes, scenes-sizes"),
        ("pope", {}, "needs root=, a folder that holds coco_pope"),
        ("pope", {"root": "/no/such/folder"}, "does not exist; it must hold coco_pope"),
        ("scenes", {"root": "."}, "reads no files"),
        ("pope", {"root": ".", "imagesroot": 1}, "did you mean 'images_root'"),
        ("folder", {"root": ".", "x": 1}, "Its options are columns, images_root, task"),
        ("scenes", {"limit": True}, "limit"),
        ("scenes", {"limit": -1}, "limit"),
        ("scenes", {"seed": 0.5}, "seed"),
        ("scenes", {"on_error": "ignore"}, "'raise' or 'skip'"),
    ],
)
def test_a_wrong_call_is_told_what_would_be_right(name, options, message):
    with pytest.raises(DataError, match=message):
        mechvrp.data.load(name, **options)


def test_importing_loads_no_array_or_image_library():
    code = (
        "import sys, mechvrp, mechvrp.data.pope, mechvrp.data.folder; "
        "print(*{'numpy', 'pandas', 'pyarrow', 'PIL', 'sklearn', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_module_has_the_name_of_a_public_function():
    for name in mechvrp.data.__all__:
        assert not inspect.ismodule(getattr(mechvrp.data, name))
    assert mechvrp.data.__all__ == sorted(mechvrp.data.__all__)
