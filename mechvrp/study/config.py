"""``StudyConfig``: what a study was asked to do, checked before any compute."""

from __future__ import annotations

import types
import typing
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from mechvrp.errors import InputError
from mechvrp.study.schema import EXAMPLE_COLUMNS

__all__ = ["StudyConfig", "describe", "typed"]

_LEAST = {
    "n": 20,
    "draws": 20,
    "n_resamples": 100,
    "batch_size": 1,
    "max_new_tokens": 1,
    "samples": 0,
    "probe_examples": 100,
    "intervene_examples": 20,
    "mask_draws": 1,
    "noise_draws": 1,
}


#: Columns of a study's tables that are no signals.
_TAKEN = (*EXAMPLE_COLUMNS, "answer_tokens", "votes", "map", "map_rows")


def _setting(default: Any, words: str) -> Any:
    """A field with what it means, which the YAML file shows beside it."""
    return field(default=default, metadata={"words": words})


@dataclass(frozen=True)
class StudyConfig:
    """Settings of a study; all of them are kept in the run folder.

    ``given`` identifies a dataset or models that were passed as objects; ``run_study`` fills it in, so
    that another object is another configuration. What the others mean: ``mechvrp study --print-config``,
    or ``describe()``.
    """

    models: tuple[str, ...] = _setting(("tiny-llava",), "names, folders or hub ids")
    data: str = _setting("scenes", "name of the dataset; `mechvrp data` lists them")
    root: str | None = _setting(None, "where the dataset's files are, if it needs any")
    split: str | None = _setting(None, "split of the dataset; by default its own default")
    task: str | None = _setting(None, "keep one task of the dataset")
    n: int = _setting(400, "examples, at most")
    seed: int = _setting(0, "of data, split, folds, resampling and random draws")
    test_size: float = _setting(0.5, "share of the images that is held out")
    draws: int = _setting(20, "random sets of units beside each top-k, and shuffles of labels")
    ks: tuple[int, ...] | None = _setting(
        None, "numbers of units to ablate, from 0; by default 0 1 2 5 ... up to half of the width"
    )
    n_resamples: int = _setting(2000, "bootstrap resamples behind each interval")
    batch_size: int = _setting(32, "examples a forward")
    max_new_tokens: int = _setting(16, "longest answer, in tokens")
    samples: int = _setting(10, "sampled answers an example, for self-consistency; 0 for none")
    temperature: float = _setting(0.7, "of the sampled answers: logits are divided by it")
    top_p: float = _setting(
        0.9, "of the sampled answers: the most probable tokens are kept whose mass reaches it"
    )
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1, mps")
    dtype: str = _setting("auto", "auto, float32, bfloat16, float16")
    reading: Literal["official", "strict"] | None = _setting(
        None,
        "how yes/no answers are read: official (POPE's own code: whatever is not a no is a yes) or "
        "strict; by default official for pope, else strict",
    )
    readouts: bool = _setting(
        False,
        "beside the linear probe: sparse and MLP probes, the last five layers, distance to "
        "centroids, and a classifier on 11 features of attention",
    )
    readout_layers: int | None = _setting(
        None,
        "sparse and MLP probes (10 s a layer or more, from a width of 4,096) are fitted at so many "
        "layers, the linear probe's best by cross-validation; by default at every layer",
    )
    comparators: bool = _setting(
        False, "maps of Grad-CAM, gradient times input and attention rollout as signals"
    )
    signals: tuple[str, ...] = _setting(
        (), "names of further signals, registered by a package or by register_signal"
    )
    causal: bool = _setting(
        False,
        "interventions: image patches masked, MLP neurons and residual dimensions ablated (zero and "
        "mean), noise on hidden states, on attention, and on both",
    )
    mask_fraction: float = _setting(0.3, "share of the image patches that is masked")
    mask_draws: int = _setting(5, "random masks beside the top and bottom ones")
    noise: float = _setting(
        1.0,
        "noise on hidden states, in standard deviations of each layer, and on the logarithm of "
        "attention weights",
    )
    noise_draws: int = _setting(3, "draws of noise")
    probe_examples: int = _setting(
        10_000,
        "probes are fitted and judged on at most so many examples (whole images, drawn by the seed), "
        "which bounds memory",
    )
    intervene_examples: int = _setting(
        5_000, "interventions are run on at most so many held-out examples (likewise)"
    )
    given: dict[str, Any] | None = field(default=None, metadata={"words": ""})

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(StudyConfig)
        for name in describe():
            typed(hints[name], getattr(self, name), name)
        if self.given is not None and not isinstance(self.given, dict):
            raise InputError(f"given is filled in by run_study; got {self.given!r:.60}")
        if not self.models:
            raise InputError("a study needs at least one model")
        if len(set(self.models)) != len(self.models):
            raise InputError(f"each model once, please; got {', '.join(self.models)}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(
                    f"{name} must be a whole number of at least {least}; got {value!r}"
                )
        for name in ("readouts", "comparators", "causal"):
            if type(getattr(self, name)) is not bool:
                raise InputError(f"{name} must be true or false; got {getattr(self, name)!r}")
        if self.signals:
            from mechvrp.reliability.registered import check_registered

            check_registered(self.signals)
            if taken := [name for name in self.signals if name in _TAKEN]:
                raise InputError(
                    f"a study's tables have columns called {', '.join(taken)}, which a signal would replace: "
                    "register it under another name"
                )
        if not 0.1 <= self.test_size <= 0.9:
            raise InputError(
                f"test_size is a share of the images, 0.1 to 0.9; got {self.test_size}"
            )
        if self.readout_layers is not None and self.readout_layers < 1:
            raise InputError(f"readout_layers must be at least 1; got {self.readout_layers}")
        if not 0 < self.temperature < 1e6:
            raise InputError(f"temperature must be above 0; got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1; got {self.top_p}")
        if not 0 < self.mask_fraction < 1:
            raise InputError(f"mask_fraction is between 0 and 1; got {self.mask_fraction}")
        if not 0 < self.noise < 1e6:
            raise InputError(f"noise is a number of standard deviations above 0; got {self.noise}")
        if self.reading not in (None, "official", "strict"):
            raise InputError(f"reading must be 'official' or 'strict'; got {self.reading!r}")
        if self.ks == (0,):
            raise InputError("ks must hold a number of units beside 0, e.g. 0 5")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}; got {self.seed}")
        if self.ks is not None and (list(self.ks) != sorted(set(self.ks)) or self.ks[:1] != (0,)):
            raise InputError(f"ks must ascend from 0, e.g. 0 1 2 5 10; got {list(self.ks)}")

    @property
    def yes_no(self) -> Literal["official", "strict"]:
        """How yes/no answers are read."""
        return self.reading or ("official" if self.data == "pope" else "strict")

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def describe() -> dict[str, str]:
    """What each setting means, in the order in which a configuration file shows them."""
    return {f.name: f.metadata["words"] for f in fields(StudyConfig) if f.metadata["words"]}


def typed(hint: Any, value: Any, where: str) -> Any:
    """``value``, if it is of a setting's type; lists become tuples, and whole numbers floats."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        inner = next(argument for argument in arguments if argument is not type(None))
        return typed(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} must be a list; got {value!r:.60}")
        return tuple(typed(arguments[0], item, where) for item in value)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where} must be one of {', '.join(arguments)}; got {value!r:.60}")
        return value
    if hint is float and type(value) in (int, float):
        return float(value)
    if type(value) is not hint:
        raise InputError(f"{where} must be of type {hint.__name__}; got {value!r:.60}")
    return value
