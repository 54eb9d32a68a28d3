"""A study's settings from a preset, a YAML file and the caller, in this order; and a documented file."""

from __future__ import annotations

import difflib
import textwrap
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mechvrp.errors import InputError
from mechvrp.files import path_of, read_file
from mechvrp.study.config import StudyConfig, describe, typed

__all__ = ["PRESETS", "config_text", "parse_settings", "read_settings", "resolve_settings"]

#: What a preset sets; the rest are ``StudyConfig``'s defaults.
PRESETS: dict[str, dict[str, Any]] = {
    # A first look: signals, the linear probe beside its baselines, one ablation curve.
    "quick": {},
    # Everything the VRP papers report. With 49 draws two curves can both pass a test adjusted for two.
    "vrp": {"n": 1_000, "readouts": True, "causal": True, "draws": 49},
    # That, the comparators people ask for, and enough random draws for p-values down to 0.005.
    "full": {
        "n": 5_000,
        "readouts": True,
        "causal": True,
        "comparators": True,
        "draws": 199,
        "mask_draws": 20,
        "noise_draws": 10,
    },
}


def resolve_settings(
    preset: str | None = None,
    file: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings for ``StudyConfig``; a later source wins.

    Args:
        preset: one of ``PRESETS``; else the file's own ``preset``; else ``"quick"``.
        file: YAML, as ``read_settings``.
        given: settings by name.

    Raises:
        InputError: an unknown preset or setting, or a value of another type.
    """
    found = read_settings(file) if file is not None else {}
    own = found.pop("preset", None)
    chosen = preset or own or "quick"
    if not isinstance(chosen, str) or chosen not in PRESETS:
        raise InputError(f"no preset {chosen!r}; there are {', '.join(PRESETS)}")
    return {**PRESETS[chosen], **found, **checked_settings(given or {}, "the study's options")}


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings of a YAML file: ``preset`` and fields of ``StudyConfig``, all optional.

    Raises:
        InputError: the file cannot be read, is no mapping, or has an unknown setting or one of
            another type; it is named.
    """
    file = path_of(path, "the settings' file")
    try:
        text = read_file(file).decode("utf-8")
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"the settings {path} cannot be read: {error}") from error
    try:
        value = _parsed(text)
    except ValueError as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold settings as `name: value`; found {value!r:.60}")
    preset = value.pop("preset", None)
    found = checked_settings(value, str(path))
    return found if preset is None else {"preset": preset, **found}


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings written as ``name=value``, the value as in YAML.

    Raises:
        InputError: another form, an unknown name, or a value of another type.

    >>> parse_settings(["noise=0.5", "ks=[0, 5]"])
    {'noise': 0.5, 'ks': (0, 5)}
    """
    if (
        not isinstance(given, Sequence)
        or isinstance(given, str)
        or not all(isinstance(text, str) for text in given)
    ):
        raise InputError(f"expected a list of NAME=VALUE texts; got {given!r:.60}")
    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise InputError(f"--set is NAME=VALUE; got {text!r}")
        if name.strip() in found:
            raise InputError(f"--set names {name.strip()!r} twice")
        try:
            found[name.strip()] = _parsed(value)
        except ValueError as error:
            raise InputError(f"--set {text}: the value is not YAML: {error}") from error
    return checked_settings(found, "--set")


def checked_settings(given: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Settings by name, each of its field's type; lists become tuples."""
    if not isinstance(given, Mapping):
        raise InputError(f"{where} must be settings by name; got {given!r:.60}")
    hints = typing.get_type_hints(StudyConfig)
    known = list(describe())
    found = {}
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(
                f"{where}: no setting {name!r}{hint} A study's options are {', '.join(known)}"
            )
        if name in ("models", "signals") and isinstance(value, str):
            value = (value,)
        found[name] = typed(hints[name], value, f"{where}: {name}")
    return found


def config_text(settings: Mapping[str, Any]) -> str:
    """A YAML file of all settings, each with a comment that says what it is.

    Args:
        settings: those that differ from ``StudyConfig``'s defaults.
    """
    config = StudyConfig(**settings).to_json()
    lines = [
        "# Settings of `mechvrp study --config FILE`; what is left out has its preset's value."
    ]
    for name, words in describe().items():
        lines += ["", *textwrap.wrap(words, 96, initial_indent="# ", subsequent_indent="# ")]
        text = yaml.safe_dump(config[name], default_flow_style=True, allow_unicode=True, width=9999)
        lines.append(f"{name}: {text.removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines) + "\n"


def _parsed(text: str) -> Any:
    """The value of a YAML text; ``ValueError`` for anything else."""
    try:
        return yaml.load(text, Loader=_Strict)
    # Its constructors raise what Python raises: of "2001-99-99", of "!!bool maybe", of deep nesting.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


class _Strict(yaml.SafeLoader):
    """YAML without objects, in which a name comes once and nothing stands for something else.

    A few lines of aliases can stand for more values than fit into memory (and settings need none).
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(
                f"aliases (*{event.anchor}, line {event.start_mark.line + 1}) are not allowed"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value
            if not isinstance(name, str):
                raise yaml.YAMLError(f"names must be text (line {key.start_mark.line + 1})")
            if name in seen:
                raise yaml.YAMLError(f"{name!r} is set twice (line {key.start_mark.line + 1})")
            seen.add(name)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found
