"""Run folders and saved files, study settings, and what studies and comparisons are asked for."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from plotly.graph_objects import Figure
from safetensors.torch import save

from mechvrp.cards import prepare
from mechvrp.circuits import AblationCurve, Circuit, Ranking
from mechvrp.errors import (
    DataError,
    InputError,
    MechVRPError,
    NumericalError,
    RunFolderError,
    ShapeError,
    SiteError,
)
from mechvrp.plots import save_figure
from mechvrp.reliability import Monitor, PlattScaling, load_recalibration
from mechvrp.store import Chunks, RunFolder
from mechvrp.study import StudyConfig, compare_runs, run_study
from mechvrp.study.report import write_report
from mechvrp.study.settings import parse_settings, read_settings
from tests.bad_input.rows import DEEP, Bad, Place, bad
from tests.support import studies
from tests.support.runs import made_up

__all__ = ["ROWS"]

LOADS: dict[str, tuple[Callable[[Any], Any], type[MechVRPError]]] = {
    "Ranking.load": (Ranking.load, DataError),
    "Circuit.load": (Circuit.load, RunFolderError),
    "AblationCurve.load": (AblationCurve.load, RunFolderError),
    "load_recalibration": (load_recalibration, DataError),
    "read_settings": (read_settings, InputError),
}
FOLDERS: dict[str, tuple[Callable[[Any], Any], type[MechVRPError]]] = {
    "RunFolder.open": (RunFolder.open, RunFolderError),
    "Monitor.load": (Monitor.load, DataError),
    "Chunks.open": (Chunks.open, RunFolderError),
}
CONTENTS: dict[str, tuple[bytes | str, str]] = {
    "nothing": ("", "is damaged"),
    "no UTF-8": (b"\xff\xfe{}", "codec can't decode"),
    "nesting without end": (DEEP, "nested too deeply"),
    "NaN": ('{"format": NaN}', "which is not JSON"),
    "a number beyond numbers": ('{"format": 1e999}', "beyond what a number here can be"),
    "a whole number beyond numbers": (
        '{"format": 1' + "0" * 400 + "}",
        "beyond what a number here can be",
    ),
    "a name twice": ('{"format": 1, "format": 2}', "'format' comes twice"),
    "a list": ("[]", "expected a JSON object"),
    "something behind the end": ("{} x", "Extra data"),
    "another program's": ('{"format": "other"}', "other"),
}


def held(read: Callable[[Any], Any], content: Any) -> Any:
    return lambda place: read(place.put("held.json", content))


def pipe(read: Callable[[Any], Any]) -> Any:
    def run(place: Place) -> Any:
        os.mkfifo(place.tmp / "pipe")
        return read(place.tmp / "pipe")

    return run


RANKED = Ranking(("blocks.1.mlp.hook_post",), np.arange(8.0))
NODE = "blocks.1.attn.hook_z[head 0]@last"


def ranking(name: str, value: Any) -> Any:
    def run(place: Place) -> Any:
        file = RANKED.save(place.tmp / "r.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
        return Ranking.load(file)

    return run


def circuit(name: str, value: Any) -> Any:
    def run(place: Place) -> Any:
        file = place.tmp / "c.json"
        Circuit([NODE]).save(file)
        file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
        return Circuit.load(file)

    return run


def opened(place: Place) -> RunFolder:
    return RunFolder.create(place.tmp / "run", {"seed": 1})


def header(**changes: Any) -> Any:
    def run(place: Place) -> Any:
        path = opened(place).path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return RunFolder.open(path.parent)

    return run


def summary(content: Any, read: Callable[[RunFolder], Any]) -> Any:
    def run(place: Place) -> Any:
        folder = opened(place)
        place.put("run/summary.json", content)
        return read(folder)

    return run


def examples(read: Callable[[RunFolder], Any], **columns: Any) -> Any:
    """A sound run, but for some columns of its table of examples."""

    def run(place: Place) -> Any:
        folder = RunFolder.open(studies.run(place.tmp / "run", "a", n=60))
        folder.write_examples(folder.read_examples().assign(**columns))
        return read(folder)

    return run


def observed(**columns: Any) -> Any:
    """A report of a run whose pieces have other maps or votes than a study writes."""

    def run(place: Place) -> Any:
        folder = RunFolder.open(studies.run(place.tmp / "run", "a", n=60))
        table = pd.DataFrame({"map": [[0.5, 0.5]] * 60, "map_rows": 1, "votes": [["yes"]] * 60})
        for name, value in columns.items():
            table[name] = pd.Series([value] * 60)
        folder.chunks("observe", "0-a", 60, 60).write(0, table)
        return write_report(folder)

    return run


def sized(**sizes: int) -> Any:
    """A sound run, but for the sizes of its model."""

    def run(place: Place) -> Any:
        folder = made_up(place.tmp / "run", images=20)
        told = folder.read_summary()
        told["sections"][0]["model"] |= sizes
        folder.write_summary(told)
        return Monitor.fit(folder)

    return run


def counted(total: int) -> Any:
    def run(place: Place) -> Any:
        folder = made_up(place.tmp / "run", images=20)
        sizes = {"total": total, "size": total, "arrays": True}
        place.put("run/chunks/observe/0-made-up/pieces.json", sizes)
        return Monitor.fit(folder)

    return run


def safetensors(header: Any, data: bytes = b"\0" * 8) -> bytes:
    made = json.dumps(header).encode()
    return struct.pack("<Q", len(made)) + made + data


def pieces(first: bytes | None = None, second: bytes | None = None, sizes: Any = None) -> Any:
    """The array of a run of two pieces, one of them with another file in the place of its own."""

    def run(place: Place) -> Any:
        chunks = opened(place).chunks("observe", "m", 4, 2)
        for i in range(2):
            array = {"h": np.ones((2, 3), np.float32)}
            chunks.write(i, pd.DataFrame({"a": [1, 2]}), array, {"h": ("example", "d")})
        for i, content in enumerate((first, second)):
            if content is not None:
                (chunks.folder / f"{i:06d}.safetensors").write_bytes(content)
        if sizes is not None:
            (chunks.folder / "pieces.json").write_text(json.dumps(sizes))
        return Chunks.open(chunks.folder).array("h")

    return run


def dims(text: str) -> bytes:
    return save({"h": torch.ones(2, 3)}, metadata={"dims": text})


def yaml(text: str | bytes) -> Any:
    return lambda place: read_settings(place.put("s.yaml", text))


def study(**options: Any) -> Any:
    def run(place: Place) -> Any:
        given = {"out": place.tmp / "out", "n": 20, "progress": False, **options}
        return run_study(**given)

    return run


BOMB = "ks: &a [0, 1]\nmodels: [*a, *a]\n"
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

ROWS: list[Bad] = [
    *(
        bad(f"{name}({given!r:.12})", lambda p, read=read, given=given: read(given), says, error)
        for name, (read, error) in {**LOADS, **FOLDERS}.items()
        for given, says in ((None, "is text or a Path; got None"), ("a\0b", "holds a NUL character"), ("a" * 5000, "File name too long"))
    ),
    *(bad(f"{name} of a pipe", pipe(read), "pipe", error) for name, (read, error) in LOADS.items()),
    *(bad(f"{name} of a folder", lambda p, read=read: read(p.tmp), "fil", error) for name, (read, error) in LOADS.items()),
    *(bad(f"{name} of an empty folder", lambda p, read=read: read(p.tmp), "", error) for name, (read, error) in FOLDERS.items()),
    *(
        bad(f"Ranking.load of {what}", held(Ranking.load, content), says, DataError)
        for what, (content, says) in CONTENTS.items()
    ),
    *(
        bad(f"Circuit.load of {what}", held(Circuit.load, content), says, InputError if what.startswith("another") else RunFolderError)
        for what, (content, says) in CONTENTS.items()
    ),
    *(
        bad(f"Monitor.load of {what}", lambda p, c=content: (p.put("m/weights.safetensors", b""), p.put("m/monitor.json", c), Monitor.load(p.tmp / "m")), "monitor.json", DataError)
        for what, (content, _) in CONTENTS.items()
    ),
    bad("Monitor.load without weights", lambda p: (p.put("m/monitor.json", "{}"), Monitor.load(p.tmp / "m")), "weights.safetensors cannot be read", DataError),
    *(
        bad(f"load_recalibration of {what}", held(load_recalibration, content), says, DataError)
        for what, (content, says) in CONTENTS.items()
    ),
    # tables and sizes of a stranger's run
    *(
        bad(f"a table of examples whose {name} is {kind}", examples(write_report, **{name: value}), says, RunFolderError)
        for name, kind, value, says in (
            ("answer_probability", "text", "high", "column 'answer_probability' is of kind 'text', expected 'number'"),
            ("probe_score", "text", "1.0", "column 'probe_score' is of kind 'text'"), ("spatial_entropy", "text", "x", "column 'spatial_entropy' is of kind 'text'"),
            ("correct", "text", "yes", "column 'correct' is of kind 'text'"), ("question", "a number", 3, "column 'question' is of kind 'whole number', expected 'text'"),
            ("task", "missing", None, "column 'task' has no value in 60 rows"), ("example", "always the same", 0, "has an example twice"),
            ("example", "text", "0", "column 'example' is of kind 'text'"),
        )
    ),
    *(
        bad(f"a run of which {name} is {value}", observed(**{name: value}), "its maps, votes or margins are not as a study writes them", RunFolderError)
        for name, value in (("map", []), ("map", ["x"]), ("map", 3.0), ("map", [0.0, 0.0]), ("map", [0.5, -0.5]), ("map_rows", "x"), ("map_rows", 0), ("map_rows", 3), ("votes", 3))
    ),
    bad("a comparison of a run whose signals are text", examples(lambda run: compare_runs([run.path]), spatial_entropy="x"), "column 'spatial_entropy' is of kind 'text'", RunFolderError),
    bad("a monitor of a run whose signals are text", lambda p: Monitor.fit(made_up(p.tmp / "run", images=20, answer_probability=lambda table: "x")), "column 'answer_probability' is of kind 'text'", RunFolderError),
    *(
        bad(f"a monitor of a run of {sizes}", sized(**sizes), says, RunFolderError)
        for sizes, says in (
            ({"n_layers": 10**9}, "tells of 1000000000 layers of width 12, and the hidden"), ({"d_model": 10**9}, "tells of 3 layers of width 1000000000, and"),
            ({"n_layers": 10**9, "d_model": 0}, "layers of width 0"), ({"n_layers": 0}, "has 0 layers"),
        )
    ),
    bad("a monitor of a run of a million million examples", counted(10**12), "its observations 1000000000000", RunFolderError),
    # addresses, where a path of this machine is wanted
    *(
        bad(f"{what} {given!s:.20}", lambda p, save=save, given=given: save(given), says, error)
        for given in ("s3://bucket/x.json", Path("s3://bucket/x.json"))
        for what, save, says, error in (
            ("a ranking saved at", RANKED.save, "is one of this machine", InputError), ("a circuit saved at", Circuit([NODE]).save, "is one of this machine", InputError),
            ("a recalibration saved at", PlattScaling(1.0, 0.0).save, "is one of this machine", InputError),
            ("a figure saved at", lambda at: save_figure(Figure(), at), "is one of this machine", InputError),
            ("a card at", lambda at: prepare("tiny-llava", out=at), "is one of this machine", InputError),
            ("a ranking read from", Ranking.load, "is one of this machine", DataError), ("a monitor read from", Monitor.load, "is one of this machine", DataError),
        )
    ),
    bad("a run at what Path makes of an address", lambda p: RunFolder.create(Path("s3://bucket/run"), {}), "an address", RunFolderError),
    bad("a comparison at what Path makes of an address", lambda p: compare_runs([opened(p).path], out=Path("s3://bucket/cmp")), "an address", RunFolderError),
    bad("a run in an archive that is not there", lambda p: RunFolder.create("zip://x::/no.zip", {}), "cannot be reached: FileNotFoundError", RunFolderError),
    # rankings and circuits
    *(
        bad(f"a ranking's {name} {value!r:.20}", ranking(name, value), says, DataError)
        for name, value, says in (
            ("scores", [1, "2"], "expected a list of numbers"), ("scores", [True] * 8, "expected a list of numbers"), ("scores", [], "expected one for each unit"),
            ("scores", [[1]] * 8, "expected a list of numbers"), ("low", [1], "give both low and high"), ("sites", ["x"], "no site 'x'"), ("sites", [3], "sites holds 3, expected text"),
            ("sites", [], "at least one"), ("sites", ["blocks." + "9" * 30 + ".mlp.hook_post"], "no site"), ("columns", {"a": [1]}, "a of shape (1,)"), ("columns", {"unit": [0] * 8}, "cannot be called 'unit'"),
            ("images", [1], "images holds 1, expected text"), ("format_version", True, "format_version is True"), ("format_version", 2, "was written in format 2"),
            ("settings", [], "settings is []"), ("ties", [1], "ties of shape (1,)"), ("extra", 1, "it holds extra besides"),
        )
    ),
    bad("a ranking of texts", lambda p: Ranking(("blocks.1.mlp.hook_post",), np.array(["a"])), "scores must be numbers", InputError),
    bad("a ranking of complex numbers", lambda p: Ranking(("blocks.1.mlp.hook_post",), np.array([1j])), "scores must be numbers", InputError),
    bad("a ranking of NaN", lambda p: Ranking(("blocks.1.mlp.hook_post",), np.array([np.nan])), "are NaN or infinite", NumericalError),
    bad("a ranking in two dimensions", lambda p: Ranking(("blocks.1.mlp.hook_post",), np.zeros((2, 2))), "expected one for each unit", ShapeError),
    bad("more units than there are", lambda p: RANKED.top(9), "expected 0 to that", InputError),
    bad("one and a half units", lambda p: RANKED.top(1.5), "expected a whole number of units", InputError),
    bad("a ranking saved into a folder's place", lambda p: RANKED.save(p.tmp), "is a folder; give the path of a file in it", InputError),
    bad("a ranking saved in no folder", lambda p: RANKED.save(p.tmp / "no" / "r.json"), "is not a folder; make it", InputError),
    *(
        bad(f"a circuit's {name} {str(value)[-36:]}", circuit(name, value), says, error)
        for name, value, says, error in (
            ("nodes", [3], "is not the name of a node", InputError), ("nodes", ["x"], "no site 'x'", InputError), ("edges", [3], "an edge is {sender, receiver, score}", InputError),
            ("edges", [{"sender": NODE, "receiver": "logits", "score": "1"}], "the score of an edge is a number", InputError),
            ("edges", [{"sender": NODE, "receiver": NODE, "score": 1}], "is not computed behind", InputError), ("n_layers", -1, "n_layers is -1", InputError),
            ("n_layers", True, "n_layers is True", InputError), ("settings", None, "settings is None", InputError), ("extra", 1, "unknown fields: ['extra']", InputError),
        )
    ),
    bad("nodes that are a number", lambda p: Circuit(3), "nodes are a list of their names; got 3", InputError),
    bad("one node twice", lambda p: Circuit([NODE] * 2), "is given twice", InputError),
    bad("a head below 0", lambda p: Circuit(["blocks.1.attn.hook_z[head -1]@last"]), "is not the name of a node", SiteError),
    bad("a head of 5,000 digits", lambda p: Circuit([f"blocks.1.attn.hook_z[head {'9' * 5000}]@last"]), "is not the name of a node", SiteError),
    # run folders
    *(
        bad(f"a run's configuration {str(value)!a:.20}", lambda p, v=value: RunFolder.create(p.tmp / "run", v), says, error)
        for value, says, error in (
            (3, "config holds settings by name; got 3", InputError), ({1: 2}, "keys must be text, found 1", InputError), ({"a": {1}}, "config.a is a set", InputError),
            ({"a": b"x"}, "config.a is a bytes", InputError), ({"a": float("nan")}, "JSON has no such number", NumericalError), ({"a": 10**400}, "none can be so large", NumericalError),
        )
    ),
    *(
        bad(f"a run whose header has {changes}", header(**changes), says, RunFolderError)
        for changes, says in (
            ({"format": "x"}, "is another program's"), ({"format_version": 2}, "is of run-folder format 2"), ({"format_version": True}, "is of run-folder format True"), ({"config": []}, "it holds no configuration"),
        )
    ),
    bad("another run in the folder", lambda p: (opened(p), RunFolder.create(p.tmp / "run", {"seed": 2})), "seed: 1 against 2", RunFolderError),
    bad("a folder with something else", lambda p: (p.put("run/thesis.tex", "x"), opened(p)), "it holds thesis.tex", RunFolderError),
    bad("a file removed outside the run", lambda p: (p.put("mine.txt", "x"), opened(p).discard("../mine.txt")), "is not the name of a file in the run folder", InputError),
    bad("an absolute file in a run", lambda p: opened(p).has("/etc/hostname"), "is not the name of a file in the run folder", InputError),
    bad("pieces of another folder", lambda p: opened(p).written_chunks("../.."), "is not the name of a file in the run folder", InputError),
    bad("a stage called 3", lambda p: opened(p).read_stage(3, 4), "a stage and a part have names; got 3", InputError),
    bad("a stage called ..", lambda p: opened(p).write_stage("..", "..", {}), "a stage and a part need names", InputError),
    bad("a stage of NaN", lambda p: opened(p).write_stage("a", "b", {"x": float("nan")}), "JSON has no such number", NumericalError),
    bad("a summary that is a number", lambda p: opened(p).write_summary(3), "a summary holds values by name", InputError),
    bad("a picture that climbs", lambda p: opened(p).read_gallery_image("../../secret.png"), "", InputError),
    bad("examples that are no table", lambda p: (p.put("run/examples.parquet", b"junk"), RunFolder(p.tmp / "run", {}).read_examples()), "examples.parquet", RunFolderError),
    bad("examples that are a number", lambda p: opened(p).write_examples(3), "are a pandas DataFrame; got 3", InputError),
    bad("a deep summary", summary(DEEP, lambda run: run.read_summary()), "nested too deeply", RunFolderError),
    bad("a report of an empty summary", summary({}, write_report), "summary.json", RunFolderError),
    bad("a monitor of sections that are a number", summary({"sections": 3}, lambda run: Monitor.fit(run.path)), "its sections are 3", RunFolderError),
    # safetensors
    *(
        bad(f"a piece with {what}", pieces(second=content), says, RunFolderError)
        for what, content, says in (
            ("no bytes", b"", "is damaged"), ("a pickle", b"\x80\x04K\x01.", "is damaged"), ("a header without end", struct.pack("<Q", 2**63) + b"{}", "is damaged"),
            ("a shape that lies", safetensors({"h": {**F32, "shape": [10**9]}}), "is damaged"), ("a negative shape", safetensors({"h": {**F32, "shape": [-1]}}), "is damaged"),
            ("two arrays in one place", safetensors({"h": F32, "g": F32}), "is damaged"), ("an unknown dtype", safetensors({"h": {**F32, "dtype": "F99"}}), "is damaged"),
            ("NaN", save({"h": torch.full((2, 3), float("nan"))}), "numbers that are not finite"), ("another width", save({"h": torch.ones(2, 4)}), "is damaged"), ("more examples", save({"h": torch.ones(5, 3)}), "7 examples in all, expected 4"),
        )
    ),
    *(
        bad(f"names of dimensions that are {text:.12}", pieces(first=dims(text)), says, RunFolderError)
        for text, says in (("{bad", "is damaged"), ("[1]", "the names of its dimensions are [1]"), ("[" * 100_000, "nested too deeply"), ('{"h": "example"}', "the names of its dimensions"), ('{"h": ["a", "b", "c", "example"]}', "is damaged"), ('{"h": ["a"]}', "no dimension 'example'"))
    ),
    bad("another array in a piece", pieces(second=save({"g": torch.ones(2, 3)})), "no activations named ['h']", InputError),
    *(
        bad(f"sizes of pieces {sizes}", pieces(sizes=sizes), "pieces.json is damaged", RunFolderError)
        for sizes in ({}, {"total": True, "size": 2}, {"total": -1, "size": 2}, {"total": 4, "size": 0}, {"total": 10**12, "size": 1})
    ),
    # settings
    *(
        bad(f"settings: {text!r:.24}", yaml(text), says, InputError)
        for text, says in (
            (BOMB, "aliases (*a, line 2) are not allowed"), ("&a [*a]", "aliases"), ("n: " + "[" * 5000, "nested too deeply"), ("n: 2001-99-99", "month must be in 1..12"), ("n: !!bool maybe", "is not YAML"),
            ("n: !!python/object/apply:os.getcwd []", "could not determine a constructor"), ("n: !!timestamp x", "is not YAML"), ("n: " + "9" * 5000, "is not YAML"), ("n: 3\nn: 4", "'n' is set twice"),
            ("? [a]\n: b", "names must be text"), ("- n", "must hold settings as `name: value`"), ("nn: 3", "did you mean 'n'?"), ("n: '30'", "n must be of type int; got '30'"), ("n: 30.0", "n must be of type int"),
            ("models: [3]", "models must be of type str; got 3"), ("ks: 5", "ks must be a list; got 5"), ("causal: 'yes'", "causal must be of type bool"), ("n: 30\n---\nn: 40", "single document"), ("n: 3\0", "not YAML"),
            ("given: {}", "no setting 'given'"), ("n: 30".encode("utf-16"), "cannot be read"),
        )
    ),
    *(
        bad(f"--set {given!r:.24}", lambda p, g=given: parse_settings(g), says, InputError)
        for given, says in ((["n"], "--set is NAME=VALUE; got 'n'"), (["n=3", "n=4"], "--set names 'n' twice"), (["n=[1"], "the value is not YAML"), ("n=3", "expected a list of NAME=VALUE"), ([3], "expected a list of NAME=VALUE"), (["n=&a [*a]"], "aliases"))
    ),
    *(
        bad(f"StudyConfig({name}={value!r:.20})", lambda p, n=name, v=value: StudyConfig(**{n: v}), says, InputError)
        for name, value, says in (
            ("seed", 1.5, "seed must be of type int; got 1.5"), ("seed", True, "seed must be of type int"), ("seed", -1, "seed must be 0 to"), ("n", 3, "n must be a whole number of at least 20"), ("test_size", float("nan"), "test_size is a share"),
            ("temperature", 0.0, "temperature must be above 0"), ("temperature", "a", "temperature must be of type float"), ("models", ("a", "a"), "each model once"), ("models", (), "at least one model"), ("ks", (0, 1.5), "ks must be of type int"),
            ("ks", (5,), "ks must ascend from 0"), ("reading", "kind", "reading must be one of official, strict"), ("readout_layers", 0, "readout_layers must be at least 1"), ("root", 3, "root must be of type str"), ("given", 3, "given is filled in by run_study"),
        )
    ),
    # studies and comparisons
    *(
        bad(f"a study with {str(options)!a:.30}", study(**options), says, error)
        for options, says, error in (
            ({"out": None}, "a run folder is text or a Path; got None", RunFolderError), ({"out": "a\0b"}, "holds a NUL character", RunFolderError), ({"out": "a" * 300}, "File name too long", RunFolderError),
            ({"model": 3}, "a study takes a model or a list of them", InputError), ({"model": []}, "at least one model", InputError), ({"model": ["tiny-llava"] * 2}, "each model once", InputError),
            ({"data": 3}, "data must be of type str", InputError), ({"data": "scens"}, "did you mean 'scenes'?", DataError), ({"preset": "slow"}, "no preset 'slow'", InputError), ({"config": "nowhere.yaml"}, "there is no such file", InputError),
            ({"stages": "observe"}, "stages is a list of observe", InputError), ({"stages": ["obsrve"]}, "stages are observe", InputError), ({"nn": 3}, "did you mean 'n'?", InputError), ({"n": 10**30}, "at most 10,000,000", DataError),
        )
    ),
    bad("a study into a file", lambda p: study(out=p.put("file", ""))(p), "is a file", RunFolderError),
    *(
        bad(f"a comparison of {given!r:.20} with {options}", lambda p, g=given, o=options: compare_runs(g, **o), says, error)
        for given, options, says, error in (
            (None, {}, "paths is a list of run folders; got None", InputError), ("runs/a", {}, "paths is a list of run folders; got 'runs/a'", InputError), ([], {}, "at least one run folder", InputError), ([3], {}, "a run folder is text or a Path; got 3", RunFolderError),
            (["nowhere"], {}, "no run folder at nowhere", RunFolderError), (["nowhere"], {"out": 3}, "is text or a Path; got 3", RunFolderError), (["nowhere"], {"seed": "a"}, "seed must be a whole number", InputError),
            (["nowhere"], {"n_resamples": 3}, "at least 100", InputError), (["nowhere"], {"training_seeds": 3}, "training_seeds holds lists", InputError),
        )
    ),
    bad("a comparison among other files", lambda p: (p.put("out/thesis.tex", "x"), compare_runs(["nowhere"], out=p.tmp / "out")), "holds no comparison", RunFolderError),
]  # fmt: skip
