"""The examples of an explorer: their answers so far, and filters over them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from mechvrp.circuits.setting_checks import check_reading, whole
from mechvrp.data import Sample, is_correct
from mechvrp.errors import InputError
from mechvrp.explorer.jobs import Job
from mechvrp.explorer.places import literal

if TYPE_CHECKING:
    from mechvrp.models import VLM
    from mechvrp.reliability.answers import Answer

__all__ = ["Examples"]

#: Examples that are answered in one forward.
_BATCH = 32


class Examples:
    """A dataset, and the model's greedy answers to those examples that were asked.

    Args:
        model: from ``mechvrp.load``.
        dataset: samples.
        reading: of yes/no answers (``mechvrp.data.score``).
        max_new_tokens: at which answers are cut.
    """

    def __init__(
        self,
        model: VLM,
        dataset: Sequence[Sample],
        reading: Literal["official", "strict"] = "strict",
        max_new_tokens: int = 16,
    ) -> None:
        if isinstance(dataset, (str, Sample)) or not isinstance(dataset, Sequence):
            raise InputError(
                "dataset is a sequence of samples, such as mechvrp.data.load gives; got "
                f"{type(dataset).__name__}"
            )
        if not len(dataset):
            raise InputError("the dataset holds no samples to explore")
        for i, one in enumerate(dataset):
            if not isinstance(one, Sample):
                raise InputError(
                    f"dataset is of mechvrp.data.Sample objects; its number {i} is {one!r:.60} "
                    f"({type(one).__name__})"
                )
        check_reading(reading)
        self.model = model
        self.dataset = dataset
        self.reading = reading
        self.max_new_tokens = whole("max_new_tokens", max_new_tokens, 1)
        self.answers: dict[int, Answer] = {}
        self._right: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.index(index)]

    def index(self, index: int) -> int:
        """The same index, if there is such an example."""
        if isinstance(index, bool) or not isinstance(index, int):
            raise InputError(f"an example is named by its number in the dataset; got {index!r}")
        if not 0 <= index < len(self):
            raise InputError(
                f"no example {index}: the dataset holds {len(self)}, 0 to {len(self) - 1}"
            )
        return index

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the dataset, sorted."""
        return tuple(sorted({sample.task for sample in self.dataset}))

    def beside(self, images: Collection[str], n: int, why: str) -> tuple[int, ...]:
        """The first ``n`` examples that have an answer and none of these images, by their ids.

        Raises:
            InputError: they are not of two images; ``why`` says what the others are ("were not looked at").
        """
        found = [
            i
            for i, sample in enumerate(self.dataset)
            if sample.source_id not in images and sample.answer.strip()
        ]
        left = [self.dataset[i].source_id for i in found]
        if len(set(left)) < 2:
            raise InputError(
                f"fewer than two images with answers are left that {why}; explore a larger dataset to measure "
                "a circuit on it"
            )
        enough = next(k for k, image in enumerate(left, 1) if image != left[0])
        if n < enough:
            raise InputError(
                f"the first {n} examples that {why} are of one image, and a curve needs two: give n={enough} "
                "or more"
            )
        return tuple(found[:n])

    def right(self, index: int) -> bool | None:
        """Whether the answer is right; None where the model was not asked yet."""
        return self._right.get(index)

    def answer(self, indices: Iterable[int] | None = None, *, job: Job | None = None) -> None:
        """Ask the model those that were not asked yet; what is answered before a cancel stays.

        Args:
            indices: of the examples, by default all.
            job: told of progress.
        """
        from mechvrp.reliability import greedy_answers

        job = job or Job()
        wanted = [self.index(i) for i in (range(len(self)) if indices is None else indices)]
        missing = [i for i in dict.fromkeys(wanted) if i not in self.answers]
        for first in range(0, len(missing), _BATCH):
            job.step("answering", first, len(missing))
            here = missing[first : first + _BATCH]
            found = greedy_answers(
                self.model,
                [self.dataset[i] for i in here],
                batch_size=_BATCH,
                max_new_tokens=self.max_new_tokens,
            )
            for i, answer in zip(here, found, strict=True):
                self.answers[i] = answer
                self._right[i] = bool(
                    is_correct(self.dataset[i], answer.text, reading=self.reading)
                )
        if missing:
            job.step("answering", len(missing), len(missing))

    def check_filter(self, *, task: object, right: object, text: object) -> None:
        """Raise ``InputError`` unless ``filter`` takes these, answered or not."""
        if task is not None and task not in self.tasks:
            raise InputError(f"no task {task!r} in the dataset; it has {', '.join(self.tasks)}")
        if right is not None and not isinstance(right, bool):
            raise InputError(f"right is True, False, or None for all examples; got {right!r:.60}")
        if not isinstance(text, str):
            raise InputError(f"text is what is searched for, '' for all; got {text!r:.60}")

    def filter(
        self, *, task: str | None = None, right: bool | None = None, text: str = ""
    ) -> tuple[int, ...]:
        """Numbers of the examples that fit.

        Args:
            task: of the sample.
            right: whether the model's answer is right; all examples must have been answered (``answer``).
            text: in the question or the benchmark's answer, case ignored.

        Raises:
            InputError: no such task or filter, or ``right`` before all were answered.
        """
        self.check_filter(task=task, right=right, text=text)
        found = [
            i
            for i, sample in enumerate(self.dataset)
            if (task is None or sample.task == task)
            and text.lower() in f"{sample.question}\n{sample.answer}".lower()
        ]
        if right is None:
            return tuple(found)
        unknown = sum(i not in self._right for i in found)
        if unknown:
            raise InputError(
                f"{unknown} of {len(found)} examples have not been answered yet, so which are "
                f"{'right' if right else 'wrong'} is unknown: answer them first"
            )
        return tuple(i for i in found if self._right[i] == right)

    def filter_code(
        self, *, task: str | None = None, right: bool | None = None, text: str = ""
    ) -> str:
        """Python that makes the list ``chosen`` of what ``filter`` gives."""
        lines = ["chosen = [", "    i", "    for i, sample in enumerate(dataset)"]
        tests = [] if task is None else [f"sample.task == {literal(task)}"]
        if text:
            tests.append(
                f'{literal(text.lower())} in f"{{sample.question}}\\n{{sample.answer}}".lower()'
            )
        if tests:
            lines.append("    if " + " and ".join(tests))
        lines.append("]")
        if right is None:
            return "\n".join(lines)
        return "\n".join(
            [
                "from mechvrp.data import is_correct",
                "from mechvrp.reliability import greedy_answers",
                "",
                *lines,
                f"answers = greedy_answers(model, [dataset[i] for i in chosen], max_new_tokens="
                f"{self.max_new_tokens})",
                "right = [",
                f"    is_correct(dataset[i], answer.text, reading={literal(self.reading)})",
                "    for i, answer in zip(chosen, answers)",
                "]",
                f"chosen = [i for i, good in zip(chosen, right) if good is {bool(right)}]",
            ]
        )
