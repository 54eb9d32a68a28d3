"""The registry of signals."""

import pytest

from mechvrp.errors import InputError
from mechvrp.reliability import SIGNALS, Signal, find_signals, predictors

MINE = Signal("mine", "generation", None, False, 1, "Something of mine.", "me")


def test_every_signal_is_fully_described():
    assert len(SIGNALS) == 29
    for name, signal in SIGNALS.items():
        assert signal.name == name
        assert signal.kind in ("structure", "generation", "hidden", "comparator")
        assert signal.cost_forwards >= 0
        assert signal.description.endswith(".")
        assert signal.source
    assert {name for name, signal in SIGNALS.items() if signal.uses_label} == {
        "truth_margin",
        "region_mass",
        "grad_cam_region_mass",
        "gradient_input_region_mass",
        "rollout_region_mass",
    }


def test_the_registry_cannot_be_changed():
    with pytest.raises(TypeError):
        SIGNALS["mine"] = MINE  # type: ignore[index]
    with pytest.raises(AttributeError):
        SIGNALS["gini"].uses_label = True  # type: ignore[misc]


def test_names():
    assert [signal.name for signal in find_signals(["gini", "p_tok"])] == ["gini", "p_tok"]
    assert find_signals(["mine"], [MINE]) == [MINE]
    assert find_signals(["truth_margin"])[0].uses_label
    with pytest.raises(InputError, match=r"unknown signal 'ginni'; did you mean 'gini'\?"):
        find_signals(["ginni"])
    with pytest.raises(InputError, match=r"unknown signal 'mine'.*extra="):
        find_signals(["mine"])
    with pytest.raises(InputError, match="'gini' is named twice"):
        find_signals(["gini", "p_tok", "gini"])
    with pytest.raises(InputError, match="'gini' exists already"):
        find_signals(["p_tok"], [Signal("gini", "structure", None, False, 0, "Other.", "me")])


def test_what_uses_the_label_cannot_predict():
    assert predictors(["own_margin", "mine"], [MINE]) == [SIGNALS["own_margin"], MINE]
    with pytest.raises(InputError, match="'truth_margin' uses the right answer"):
        predictors(["gini", "truth_margin"])
    telling = Signal("oracle", "comparator", True, True, 0, "The label.", "me")
    with pytest.raises(InputError, match="'oracle'"):
        predictors(["oracle"], [telling])
