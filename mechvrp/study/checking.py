"""Records that would stop a study are left out before it begins, and listed."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from mechvrp.data import Dataset
from mechvrp.data.sample import Skipped
from mechvrp.errors import DataError, RunFolderError
from mechvrp.store import RunFolder

__all__ = ["usable_dataset"]


def usable_dataset(run: RunFolder, dataset: Dataset, say: Console) -> Dataset:
    """The dataset without the records that ``Dataset.check`` objects to.

    The choice is kept in the run folder (``stages/check/data.json``): a run that goes on later has the same
    examples, whatever became of the files.

    Raises:
        DataError: no record can be used.
        RunFolderError: the dataset has another number of records than when the run began.
    """
    kept = run.read_stage("check", "data")
    if kept is None:
        places = {s.record or f"{dataset.name}[{i}]": i for i, s in enumerate(dataset)}
        bad: dict[int, list[str]] = {}
        for problem in dataset.check():
            bad.setdefault(places[problem.record], []).append(problem.reason)
        left_out = [
            {
                "index": i,
                "record": dataset[i].record or f"{dataset.name}[{i}]",
                "reason": "; ".join(bad[i]),
            }
            for i in sorted(bad)
        ]
        kept = {"records": len(dataset), "left_out": left_out}
        run.write_stage("check", "data", kept)
    if kept["records"] != len(dataset):
        raise RunFolderError(
            f"{run.path} was begun with {kept['records']} records of {dataset.name}; there are "
            f"{len(dataset)} now. The files have changed: choose another folder"
        )
    gone = {int(entry["index"]) for entry in kept["left_out"]}
    if not gone:
        return dataset
    skipped = [Skipped(entry["record"], entry["reason"]) for entry in kept["left_out"]]
    first = "; ".join(f"{s.record}: {s.reason}" for s in skipped[:3])
    if len(gone) == len(dataset):
        raise DataError(f"no record of {dataset.name} can be used: {first}")
    say.print(
        f"[yellow]{len(gone)} of {len(dataset)} records are left out[/yellow] ({escape(first)}"
        f"{'; ...' if len(skipped) > 3 else ''}); all of them: "
        f"{escape(str(run.path / 'stages/check/data.json'))}",
        soft_wrap=True,
    )
    samples = [sample for i, sample in enumerate(dataset) if i not in gone]
    return Dataset(
        dataset.name, samples, skipped=(*dataset.skipped, *skipped), info=dict(dataset.info)
    )
