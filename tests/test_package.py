"""The package: light to import, complete in what it exports, without side effects."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import mechvrp


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_importing_is_light():
    heavy = "torch transformers nnsight sklearn pandas plotly numpy scipy PIL transformer_lens"
    found = run(
        "import sys, mechvrp, mechvrp.cli, mechvrp.data\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    assert found.strip() == "[]"


def test_every_exported_name_exists_and_is_sorted():
    names = ["mechvrp"]
    names += [
        m.name
        for m in pkgutil.walk_packages(mechvrp.__path__, "mechvrp.")
        if "__main__" not in m.name
    ]
    for name in names:
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", [])
        key = {n: (n.upper() != n, n[0].islower(), n) for n in exported}
        assert list(exported) == sorted(exported, key=key.get) or name == "mechvrp", name
        assert len(set(exported)) == len(exported), name
        for attribute in exported:
            assert getattr(module, attribute) is not None, f"{name}.{attribute}"


def test_no_function_has_the_name_of_a_module_beside_it():
    packages = [m.name for m in pkgutil.walk_packages(mechvrp.__path__, "mechvrp.") if m.ispkg]
    for name in ["mechvrp", *packages]:
        module = importlib.import_module(name)
        beside = {m.name for m in pkgutil.iter_modules(module.__path__)}
        clash = {
            n for n in beside & set(getattr(module, "__all__", [])) if callable(getattr(module, n))
        }
        assert not clash, (name, clash)


def test_importing_changes_nothing():
    out = run(
        "import logging, warnings, torch\n"
        "before = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),"
        " list(logging.getLogger().handlers), list(warnings.filters))\n"
        "import mechvrp.study, mechvrp.plots, mechvrp.tracing\n"
        "import plotly.io as pio\n"
        "after = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),"
        " list(logging.getLogger().handlers), list(warnings.filters))\n"
        "print(before[:4] == after[:4], pio.templates.default)"
    )
    assert out.strip() == "True plotly"
