"""The command line teaches, and turns bad input into a message."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from mechvrp.cli import app, main

runner = CliRunner()


@pytest.mark.parametrize("command", [[], ["study"], ["models"], ["families"], ["data"], ["report"]])
def test_help(command):
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_models_and_data_list_what_exists():
    output = runner.invoke(app, ["models"]).output
    assert "tiny-llava" in output
    assert "qwen2_5_vl" in output
    output = runner.invoke(app, ["data"]).output
    for name in ("scenes", "pope", "folder", "adversarial"):
        assert name in output


def test_families_lists_what_was_checked():
    output = runner.invoke(app, ["families"], terminal_width=200).output
    for name in ("paligemma", "gemma3", "idefics3", "mllama"):
        assert name in output


def test_families_checks_a_model():
    output = runner.invoke(app, ["families", "--check", "tiny-qwen2-vl"]).output
    assert "a family written by hand" in output
    assert "differs" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "--out", "{tmp}/a", "--model", "no-such-model", "--n", "20"], "no-such-model"),
        (["study", "--out", "{tmp}/b", "--data", "scens"], "scenes"),
        (["study", "--out", "{tmp}/c", "--split", "advers"], "adversarial"),
        (["study", "--out", "{tmp}/d", "--k", "5"], "ascend from 0"),
        (["study", "--out", "{tmp}/e", "--data", "pope"], "root"),
        (["study", "--out", "{file}"], "is a file"),
        (["report", "{tmp}"], "not a run folder"),
    ],
)
def test_bad_input_is_a_message_and_status_1(arguments, message, tmp_path, monkeypatch, capsys):
    file = tmp_path / "file"
    file.write_text("")
    filled = [a.format(tmp=tmp_path, file=file) for a in arguments]
    monkeypatch.setattr(
        "sys.argv", ["mechvrp", *filled, *(["--quiet"] if "study" in filled else [])]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
