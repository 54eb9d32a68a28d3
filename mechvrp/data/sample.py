"""``Sample`` and ``Dataset``: what every benchmark loader returns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from mechvrp.data.images import ImageSource, Look, as_rgb, look_at_image, look_at_images
from mechvrp.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Dataset", "Looked", "Sample", "Skipped", "check_sample"]


class Sample:
    """One question about one image.

    Args:
        image: a ``PIL.Image``, or a function of no arguments that opens one. A function is called
            at each use and its result is not kept: a dataset of a million samples holds no pixels.
        question: the question alone, without a prompt template around it.
        answer: the benchmark's own answer string.
        image_id: identity of the image; splits and intervals group by it.
        task: ``"existence"``, ``"identification"``, ``"counting"``, ``"spatial"``, ``"vqa"``,
            ``"multiple-choice"``, ...: what a prompt asks for and how answers are scored.
        split: the benchmark's name of the split.
        meta: what else the benchmark knows (cells, boxes, question ids); copied.
    """

    __slots__ = ("_image", "answer", "image_id", "meta", "question", "split", "task")

    def __init__(
        self,
        image: Image | Callable[[], Image],
        question: str,
        answer: str = "",
        image_id: str = "",
        task: str = "vqa",
        split: str = "",
        meta: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not (callable(image) or hasattr(image, "convert") or image is None):
            raise DataError(
                f"a sample's image is a PIL.Image or a function that opens one; got {image!r:.60} "
                f"({type(image).__name__})"
            )
        texts = {"question": question, "answer": answer, "image_id": image_id, "task": task}
        for name, value in {**texts, "split": split}.items():
            if not isinstance(value, str):
                raise DataError(
                    f"a sample's {name} is text; got {value!r:.60} ({type(value).__name__})"
                )
        if not isinstance(meta, Mapping):
            raise DataError(f"a sample's meta holds values by name; got {meta!r:.60}")
        self._image = image
        self.question = question
        self.answer = answer
        self.image_id = image_id
        self.task = task
        self.split = split
        # A plain dict: a mapping proxy would keep samples from being pickled to worker processes.
        self.meta: dict[str, Any] = dict(meta)

    @property
    def image(self) -> Image:
        """The image, RGB (raises ``DataError``, naming the record, if it cannot be opened)."""
        return as_rgb(self._image() if callable(self._image) else self._image)

    @property
    def source_id(self) -> str:
        """``image_id``, or that of the image this one was made from (``meta["counterfactual_of"]``).

        Images of one source are no independent evidence.
        """
        source = self.meta.get("counterfactual_of")
        return source if isinstance(source, str) and source else self.image_id

    @property
    def record(self) -> str:
        """Where the sample stands in its files (``"metadata.csv line 7"``); empty if generated."""
        return self._image.record if isinstance(self._image, ImageSource) else ""

    def look(self, seen: dict[Hashable, Look] | None = None) -> Look:
        """Width and height of the image, or why it cannot be opened.

        Args:
            seen: pass one dict for many samples, and an image they share is decoded once.
        """
        return look_at_image(self._image, {} if seen is None else seen)

    def question_problem(self) -> str | None:
        """Why the question cannot be asked (it is empty, or is no text that UTF-8 can hold), or ``None``."""
        if not self.question.strip():
            return "the question is empty"
        try:
            self.question.encode("utf-8")
        except UnicodeEncodeError as error:
            found = self.question[error.start]
            return (
                f"the question does not encode to UTF-8: character {error.start} is the lone surrogate "
                f"{found!r}"
            )
        return None

    def __repr__(self) -> str:
        return (
            f"Sample({self.task}/{self.split}, image_id={self.image_id!r}, "
            f"question={self.question!r}, answer={self.answer!r})"
        )


def check_sample(given: object) -> None:
    """Raise ``DataError`` unless it is a sample."""
    if not isinstance(given, Sample):
        raise DataError(f"expected a sample (mechvrp.Sample); got {given!r:.60}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record left out because it could not be used, and why."""

    record: str
    reason: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What looking at every sample found.

    Attributes:
        problems: by the samples' numbers, what would stop a run; a sample can have several.
        sizes: of each sample's image, width and height; ``None`` where there is none, or none was looked at.
    """

    problems: tuple[tuple[int, str], ...]
    sizes: tuple[tuple[int, int] | None, ...]


class Dataset(Sequence[Sample]):
    """A sequence of samples with a name; a slice gives a list of samples.

    Args:
        name: the benchmark's name.
        samples: the samples, in the benchmark's own order.
        skipped: records that were left out under ``on_error="skip"``.
        info: how the dataset was made (root, split, seed); study records copy it.

    Raises:
        DataError: there is no sample.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        *,
        skipped: Sequence[Skipped] = (),
        info: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not isinstance(samples, Sequence) or isinstance(samples, str | bytes):
            raise DataError(f"a dataset's samples are a list of them; got {samples!r:.60}")
        if isinstance(samples, list | tuple):  # else perhaps a table that makes each when asked
            for sample in samples:
                check_sample(sample)
        if not isinstance(name, str):
            raise DataError(f"a dataset's name is text; got {name!r:.60}")
        if not samples:
            reasons = "; ".join(f"{s.record}: {s.reason}" for s in skipped[:3])
            raise DataError(
                f"dataset {name!r} holds no samples"
                + (f" ({len(skipped)} records were skipped: {reasons})" if skipped else "")
            )
        self.name = name
        self.skipped = tuple(skipped)
        self.info: dict[str, Any] = dict(info)
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return list(self._samples[index])
        return self._samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The image of each sample, in order: the groups that splits and intervals keep whole."""
        return tuple(sample.image_id for sample in self._samples)

    def subset(self, indices: Sequence[int], **info: Any) -> Dataset:
        """The samples at ``indices``, in that order, as a dataset of the same name.

        Args:
            indices: positions in this dataset.
            info: entries added to the copied ``info`` (how the subset was chosen).
        """
        try:
            chosen = [self._samples[i] for i in indices]
        except (IndexError, TypeError) as error:
            raise DataError(
                f"indices must be places in {self!r}, from 0 to {len(self) - 1}; got {indices!r:.60}"
            ) from error
        return Dataset(self.name, chosen, info={**self.info, **info})

    def check(self, *, images: bool = True) -> tuple[Skipped, ...]:
        """What would stop a run over these samples, by record; empty if all is well.

        Images that cannot be decoded (each is decoded once), questions without words or that do not encode
        to UTF-8, answers that
        the sample's task cannot be scored by, and identities (``meta["question_id"]`` or
        ``meta["id"]``) that come twice in a split.

        Args:
            images: decode the images, which takes longest (eight at a time).
        """
        return tuple(Skipped(self.place(i), why) for i, why in self.look(images=images).problems)

    def place(self, index: int) -> str:
        """What a sample is called in messages: its record, or its number."""
        return self._samples[index].record or f"{self.name}[{index}]"

    def look(self, *, images: bool = True) -> Looked:
        """As `check`, by the samples' numbers (records of two files may have one name), with images' sizes."""
        from mechvrp.data.scoring import answer_problem

        seen: dict[Hashable, Look] = {}
        if images:
            look_at_images((sample._image for sample in self._samples), seen)
        places: dict[tuple[str, str], int] = {}
        problems: list[tuple[int, str]] = []
        sizes: list[tuple[int, int] | None] = []
        for index, sample in enumerate(self._samples):
            found = sample.look(seen) if images else None
            sizes.append(found if isinstance(found, tuple) else None)
            reasons = [found if isinstance(found, str) else None]
            reasons.append(sample.question_problem())
            reasons.append(answer_problem(sample))
            identity = sample.meta.get("question_id", sample.meta.get("id"))
            if identity is not None:
                first = places.setdefault((sample.split, str(identity)), index)
                if first != index:
                    reasons.append(f"has the identity {identity!r} of {self.place(first)}")
            problems += ((index, reason) for reason in reasons if reason is not None)
        return Looked(tuple(problems), tuple(sizes))

    def __repr__(self) -> str:
        images = len(set(self.image_ids))
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"Dataset({self.name!r}, {len(self)} samples of {images} images{skipped})"
