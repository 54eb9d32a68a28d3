"""Coverage-guided fuzzing of one reader: ``python -m tests.fuzz.fuzz TARGET SECONDS`` (``make fuzz`` runs all).

Inputs that find something new are kept in ``runs/fuzz/TARGET``; one that ends in a foreign exception is written
there as ``crash-*``, and the exit status is not 0. ``python -m tests.fuzz.fuzz TARGET keep`` adds to the corpus
in this folder, which the test suite replays, the small inputs among them that reach what no other does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path("runs") / "fuzz"

#: Bytes of an input that is kept, and inputs a reader.
LARGEST, MOST = 1500, 24


def fuzz(name: str, seconds: str) -> None:
    import atheris

    with atheris.instrument_imports(include=["mechvrp"], enable_loader_override=False):
        from tests.fuzz.targets import run

    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-max_len=4096", "-timeout=20", "-rss_limit_mb=3000", f"-artifact_prefix={folder}/"]
    arguments = ["fuzz", str(folder), str(CORPUS / name), *options, f"-max_total_time={seconds}"]
    atheris.Setup(arguments, lambda content: run(name, content))
    atheris.Fuzz()


def merge(name: str, target: str) -> None:
    """Copies into ``target`` what it needs to reach all that the inputs found reach."""
    import atheris

    with atheris.instrument_imports(include=["mechvrp"], enable_loader_override=False):
        from tests.fuzz.targets import run

    sources = [str(CORPUS / name), str(FOUND / name)]
    options = ["-merge=1", f"-max_len={LARGEST}", "-timeout=20"]
    atheris.Setup(["fuzz", target, *sources, *options], lambda content: run(name, content))
    atheris.Fuzz()


def keep(name: str) -> None:
    merged = FOUND / f"{name}-merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz", name, "merge", str(merged)], check=True
    )
    there = {file.read_bytes() for file in (CORPUS / name).iterdir()}
    new = sorted((f for f in merged.iterdir()), key=lambda f: (f.stat().st_size, f.name))
    for file in new[: max(0, MOST - len(there))]:
        if file.read_bytes() not in there and file.stat().st_size <= LARGEST:
            shutil.copyfile(file, CORPUS / name / file.name[:12])


if __name__ == "__main__":
    name, what = sys.argv[1:3]
    if what == "keep":
        keep(name)
    elif what == "merge":
        merge(name, sys.argv[3])
    else:
        fuzz(name, what)
