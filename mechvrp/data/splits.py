"""Splits that keep every image on one side: six questions about one image are not independent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence, Sized
from typing import TYPE_CHECKING

from mechvrp.data.fields import check_seed
from mechvrp.data.sample import Dataset, Sample, check_sample
from mechvrp.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["group_folds", "train_test_split"]

# Random splits tried for the best class balance.
_TRIES = 64


def train_test_split(
    dataset: Dataset,
    *,
    test_size: float = 0.5,
    seed: int = 0,
    stratify: Sequence[object] | None = None,
) -> tuple[Dataset, Dataset]:
    """Split a dataset at random by image: no image is on both sides, nor one made from it (``source_id``).

    The splits of a benchmark that share images (POPE's do) are kept apart together.

    Args:
        dataset: what to split.
        test_size: share of the *images* (not of the questions) on the test side, in (0, 1).
        seed: of the draw.
        stratify: a class for each sample (the answer's correctness, the task). Of several random
            splits the one whose two sides are most alike in class shares is taken: as good as
            whole images allow, no guarantee.

    Returns:
        The train and the test side, each in the dataset's order.

    Raises:
        DataError: a sample without ``image_id``, fewer than two images, a bad size, or classes that
            do not match the samples.
    """
    import numpy as np
    from sklearn.model_selection import GroupShuffleSplit

    groups = _groups(dataset, 2)
    check_seed(seed)
    if not isinstance(test_size, int | float) or not 0 < test_size < 1:
        raise DataError(f"test_size is a share of the images in (0, 1), got {test_size!r}")
    classes = _classes(dataset, stratify)
    n_images = len(set(groups))
    n_test = min(max(1, round(test_size * n_images)), n_images - 1)
    splitter = GroupShuffleSplit(
        n_splits=1 if classes is None else _TRIES, test_size=n_test, random_state=seed
    )
    splits = splitter.split(np.zeros(len(dataset)), groups=groups)
    if classes is None:
        train, test = next(splits)
    else:
        one_hot = np.eye(int(classes.max()) + 1)[classes]
        train, test = min(
            splits,
            key=lambda sides: float(
                np.abs(one_hot[sides[0]].mean(axis=0) - one_hot[sides[1]].mean(axis=0)).sum()
            ),
        )
    note = {"test_size": test_size, "split_seed": seed}
    return (
        dataset.subset(np.sort(train).tolist(), side="train", **note),
        dataset.subset(np.sort(test).tolist(), side="test", **note),
    )


def group_folds(
    dataset: Sequence[Sample],
    n_folds: int = 5,
    *,
    seed: int = 0,
    stratify: Sequence[object] | None = None,
    groups: Sequence[str] | None = None,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cross-validation folds by image, for arrays in the dataset's order.

    Args:
        dataset: the samples.
        n_folds: number of folds, at least 2 and at most the number of images.
        seed: of the shuffle.
        stratify: a class for each sample, balanced over the folds as well as whole images allow.
        groups: for each sample what keeps it together with others, where that is more than its image (or
            the one that this was made from).

    Returns:
        A pair (train indices, test indices) for each fold, each sorted; every sample is in exactly
        one test side, and no image on both sides of a fold.

    Raises:
        DataError: a sample without ``image_id``, fewer images than folds, or classes that do not
            match the samples.
    """
    import numpy as np
    from sklearn.model_selection import KFold, StratifiedGroupKFold

    if isinstance(n_folds, bool) or not isinstance(n_folds, int) or n_folds < 2:
        raise DataError(f"n_folds must be a whole number of at least 2, got {n_folds!r}")
    check_seed(seed)
    together = _groups(dataset, n_folds, groups)
    classes = _classes(dataset, stratify)
    if classes is None:
        # Over the images themselves: GroupKFold shuffles only from scikit-learn 1.6 on.
        images, codes = np.unique(together, return_inverse=True)
        shuffled = KFold(n_folds, shuffle=True, random_state=seed).split(images)
        tests = [np.flatnonzero(np.isin(codes, chosen)) for _, chosen in shuffled]
    else:
        # StratifiedGroupKFold refuses when every class has fewer members than there are folds.
        if max(Counter(classes.tolist()).values()) < n_folds:
            raise DataError(f"every class has fewer than {n_folds} samples; use fewer folds")
        balanced = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        rows = np.zeros(len(dataset))
        tests = [np.sort(test) for _, test in balanced.split(rows, y=classes, groups=together)]
    every = np.arange(len(dataset))
    return [(np.setdiff1d(every, test, assume_unique=True), test) for test in tests]


def _groups(dataset: Sequence[Sample], least: int, given: Sequence[str] | None = None) -> list[str]:
    if isinstance(dataset, str | bytes) or not isinstance(dataset, Sequence):
        raise DataError(f"expected a dataset (mechvrp.data.load); got {dataset!r:.60}")
    for sample in dataset:
        check_sample(sample)
    groups = [sample.source_id for sample in dataset]
    for index, group in enumerate(groups):
        if not group:
            raise DataError(
                f"sample {index} ({dataset[index]!r}) has no image_id; without one the split "
                "cannot keep its image on one side"
            )
    if given is not None:
        if isinstance(given, str) or len(given) != len(groups):
            raise DataError(
                f"groups has a group for each of {len(groups)} samples; got {given!r:.60}"
            )
        groups = list(given)
    if (found := len(set(groups))) < least:
        linked = found < len({sample.source_id for sample in dataset})
        raise DataError(
            f"expected at least {least} distinct images, got {found}"
            + ", where those that groups link with one another count as one" * linked
            + ": give samples of more images"
            + ", or fewer folds" * (least > 2)
        )
    return groups


def _classes(
    dataset: Sequence[Sample], stratify: Sequence[object] | None
) -> NDArray[np.int64] | None:
    """The classes as numbers from 0; ``None`` if there are none."""
    import numpy as np

    if stratify is None:
        return None
    if not isinstance(stratify, Sized):
        raise DataError(f"stratify holds a class for each sample; got {stratify!r:.60}")
    if len(stratify) != len(dataset):
        raise DataError(f"stratify has {len(stratify)} classes for {len(dataset)} samples")
    for value in stratify:
        if not isinstance(value, Hashable):
            raise DataError(f"a class is a text, a number or a truth value; got {value!r:.60}")
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in stratify], dtype=np.int64)
