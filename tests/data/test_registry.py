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
    names = [info.name for info in infos]
    assert names == [
        *("aokvqa", "counting", "folder", "gqa", "hub", "llava-bench", "okvqa", "pope"),
        *("scenes", "scenes-sizes", "scienceqa", "spatial", "vqav2"),
    ]
    assert all(info.description and "\n" not in info.description for info in infos)
    assert [info.name for info in infos if not info.root] == ["scenes", "scenes-sizes"]
    assert [info.name for info in infos if info.remote] == ["hub"]


def test_the_descriptions_agree_with_the_loaders():
    scenes = importlib.import_module("mechvrp.data.scenes")
    infos = {info.name: info for info in mechvrp.data.available()}
    for name in ("aokvqa", "gqa", "okvqa", "pope", "scienceqa", "vqav2"):
        module = importlib.import_module(f"mechvrp.data.{name}")
        assert infos[name].splits == module.SPLITS
    for name in ("aokvqa", "gqa"):
        assert infos[name].tasks == importlib.import_module(f"mechvrp.data.{name}").TASKS
    assert infos["spatial"].splits == importlib.import_module("mechvrp.data.spatial").VSR_SPLITS
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
        ("imagenet", {}, "The datasets are aokvqa, counting, folder, gqa, hub, llava-bench, okvqa"),
        ("vqa2", {}, "did you mean 'vqav2'"),
        ("vqav2", {}, "needs root=, a folder that holds v2_OpenEnded"),
        ("gqa", {"root": ".", "limit": 0}, "limit"),
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
        "import sys, importlib, mechvrp; from mechvrp.data import registry\n"
        "modules = {module for _, module, _ in registry._LOADERS.values()}\n"
        "for name in modules - {'mechvrp.data.scenes'}: importlib.import_module(name)\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'PIL', 'sklearn', 'torch', 'datasets'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_module_has_the_name_of_a_public_function():
    for name in mechvrp.data.__all__:
        assert not inspect.ismodule(getattr(mechvrp.data, name))
    assert mechvrp.data.__all__ == sorted(mechvrp.data.__all__)
