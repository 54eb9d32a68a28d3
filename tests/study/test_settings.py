"""Settings come from a preset, a file and the caller; what is unknown or mistyped is named."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mechvrp.cli import main
from mechvrp.errors import InputError
from mechvrp.study import PRESETS, StudyConfig
from mechvrp.study.config import describe
from mechvrp.study.settings import (
    config_text,
    parse_settings,
    read_settings,
    resolve_settings,
)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_printed_file_gives_the_same_study(preset, tmp_path):
    file = tmp_path / "study.yaml"
    settings = {**PRESETS[preset], "ks": (0, 5), "root": "a: b #c", "models": ("a", "b/c")}
    file.write_text(config_text(settings))
    assert StudyConfig(**resolve_settings(file=file)) == StudyConfig(**settings)


def test_every_setting_is_explained():
    own = {f.name for f in fields(StudyConfig)} - {"given"}
    assert set(describe()) == own
    text = config_text({})
    for name, words in describe().items():
        assert f"\n{name}: " in text
        assert words.split()[0] in text


def test_later_sources_win(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("preset: vrp\nn: 60\nmodels: tiny-qwen2-vl\n")
    found = resolve_settings(file=file, given={"seed": 3})
    assert (found["n"], found["causal"], found["seed"]) == (60, True, 3)
    assert found["models"] == ("tiny-qwen2-vl",)
    assert resolve_settings("quick", file)["n"] == 60
    assert "causal" not in resolve_settings("quick", file)
    assert resolve_settings("full", file, {"n": 70})["n"] == 70


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "did you mean 'seed'"),
        ("n: many", "n must be of type int; got 'many'"),
        ("n: 1.5", "n must be of type int"),
        ("causal: 1", "causal must be of type bool"),
        ("ks: 5", "ks must be a list"),
        ("models: [1]", "models must be of type str"),
        ("reading: loose", "one of official, strict"),
        ("n: 30\nn: 40", "'n' is set twice"),
        ("given: {}", "no setting 'given'"),
        ("[1, 2]", "`name: value`"),
        ("a: [", "not YAML"),
        ("preset: quik", "no preset 'quik'"),
        ("preset: [a]", "no preset"),
        ("? {a: b}\n: 1", "names must be text"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_a_bad_file_is_refused(text, message, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        resolve_settings(file=file)


def test_an_empty_file_and_a_missing_one(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("# nothing\n")
    assert read_settings(file) == {}
    with pytest.raises(InputError, match="cannot be read"):
        read_settings(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "options",
    [
        {"ks": (0,)},
        {"seed": -1},
        {"seed": 2**32},
        {"mask_fraction": 1.0},
        {"noise": 0.0},
        {"temperature": 0.0},
        {"top_p": 1.5},
        {"readout_layers": 0},
        {"causal": 1},
        {"noise_draws": 0},
    ],
)
def test_bad_values(options):
    with pytest.raises(InputError, match=next(iter(options))):
        StudyConfig(**options)


def test_any_setting_on_the_command_line(capsys, monkeypatch):
    found = parse_settings(["noise=1", "ks=[0, 5]", "reading=strict", "root=a=b"])
    assert found == {"noise": 1.0, "ks": (0, 5), "reading": "strict", "root": "a=b"}
    for text, message in (
        ("noise", "NAME=VALUE"),
        ("nose=1", "did you mean 'noise'"),
        ("noise=loud", "must be of type float"),
        ("ks=[", "not YAML"),
    ):
        with pytest.raises(InputError, match=message):
            parse_settings([text])
    with pytest.raises(InputError, match="twice"):
        parse_settings(["n=30", "n=40"])
    arguments = ["mechvrp", "study", "--print-config", "--set", "noise=0.5", "--n", "77"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "\nnoise: 0.5\n" in printed
    assert "\nn: 77\n" in printed
