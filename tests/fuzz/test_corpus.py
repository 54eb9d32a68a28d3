"""What fuzzing found worth keeping, through the readers again: nothing but a ``MechVRPError`` comes of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, run

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name):
    files = sorted((CORPUS / name).iterdir())
    assert len(files) >= 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
        for file in files:
            try:
                run(name, file.read_bytes())
            except Exception as error:
                pytest.fail(f"{file.name}: {type(error).__name__}: {error}")
