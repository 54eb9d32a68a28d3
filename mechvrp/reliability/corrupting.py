"""``corrupt_windows``: noise on hidden states or attention, layer window by layer window.

Does accuracy fall while the attention maps stay focused? Noise is added at the last prompt position, in a
window of layers; the control adds the same noise at a random other text position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvrp.circuits import AnswerReader, Scored, sweep_answers
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.models import Each
from mechvrp.patching import noise
from mechvrp.reliability.outcomes import Outcomes
from mechvrp.reliability.structure import entropy_shares
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions
    from mechvrp.patching.interventions import Edits

__all__ = ["CORRUPTIONS", "Window", "corrupt_windows", "corruption_variants", "layer_windows"]

#: First and last block of a window, both in it.
Window = tuple[int, int]
#: What noise is put on.
CORRUPTIONS = ("hidden states", "attention", "hidden states and attention")
Corrupted = Literal["hidden states", "attention", "hidden states and attention"]

_MOST = 7


def layer_windows(n_layers: int) -> tuple[Window, ...]:
    """Windows that slide over depth, at most eight: each layer and each pair of up to four layers, else
    seven windows of a quarter of the layers; and all layers.

    >>> layer_windows(4)
    ((0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (1, 2), (2, 3), (0, 3))
    >>> layer_windows(32)
    ((0, 7), (4, 11), (8, 15), (12, 19), (16, 23), (20, 27), (24, 31), (0, 31))
    """
    if n_layers < 1:
        raise InputError(f"a model has at least one layer; got {n_layers}")
    if n_layers <= 4:
        found = [(a, a + w - 1) for w in (1, 2) for a in range(n_layers - w + 1)]
    else:
        width = max(2, round(n_layers / 4))
        starts = np.linspace(0, n_layers - width, _MOST).round().astype(int)
        found = [(int(a), int(a) + width - 1) for a in starts]
    return tuple(dict.fromkeys([*found, (0, n_layers - 1)]))


def corrupt_windows(
    model: VLM,
    samples: Sequence[Sample],
    windows: Sequence[Window],
    *,
    of: Corrupted = "hidden states",
    scales: Sequence[float] | np.ndarray | None = None,
    amount: float = 1.0,
    draws: int = 5,
    seed: int = 0,
    reading: Literal["official", "strict"] = "strict",
    batch_size: int = 32,
    progress: bool = False,
) -> Outcomes:
    """Put noise on windows of layers, score the answers, and measure the maps behind.

    Of hidden states: Gaussian noise on ``resid_post`` of every block of the window, at the last prompt
    position. Of attention: on the logarithm of the last position's weights, which then sum to 1 again. The
    control has the same noise in the same blocks, at one other text position, drawn for each example and draw
    among those behind the image (among all text where there are none).

    The answer is read from the first generated token, so every clean answer must be one token long. Noise and
    positions belong to examples, so that batches change nothing.

    Args:
        model: from ``mechvrp.load``.
        samples: with images.
        windows: first and last block of each (``layer_windows``).
        of: what is corrupted, one of ``CORRUPTIONS``.
        scales: standard deviation of each layer's hidden states [layer], e.g. of
            ``mechvrp.cache(model, training, "resid_post", positions="last").stack("resid_post")``; needed
            where hidden states are corrupted.
        amount: of the noise, in those standard deviations; on attention in units of the log-weights.
        draws: of the noise.
        seed: of the draws.
        reading: how yes/no answers are read (``mechvrp.data.score``).
        batch_size: examples a sweep.
        progress: show a bar.

    Returns:
        A condition for each window. Entropies (spatial entropy of the mean map over log S) are of the
        layers whose attention is not edited itself: those behind the first block of the window for hidden
        states, else those behind its last one.

    Raises:
        InputError: windows or ``scales`` that the model cannot have, or a prompt without other text.
    """
    check_windows(model, windows, of=of, scales=scales, amount=amount, draws=draws)
    read, parts = AnswerReader(model, reading), []
    for chunk in in_batches(samples, batch_size, progress, f"corrupting {of}"):
        batch = model.encode(chunk)
        edits, controls = corruption_variants(
            batch, windows, of=of, scales=scales, amount=amount, draws=draws, seed=seed
        )
        found = sweep_answers(model, batch, edits, read, attention=True)
        beside = sweep_answers(model, batch, controls, read)
        shape = (len(windows), draws, len(batch))
        errors = np.array([found.errors, beside.errors]).reshape(2, len(windows), draws)
        before, after = _entropies(batch, windows, of, found, shape)
        parts.append(
            Outcomes(
                found.clean,
                found.answers.reshape(shape),
                beside.answers.reshape(shape),
                tuple(
                    next(filter(None, errors[:, i].ravel().tolist()), "")
                    for i in range(len(windows))
                ),
                before,
                after,
            )
        )
    return Outcomes.joined(parts)


def check_windows(
    model: VLM,
    windows: Sequence[Window],
    *,
    of: str,
    scales: Sequence[float] | np.ndarray | None,
    amount: float,
    draws: int,
) -> None:
    """Raise unless ``corrupt_windows`` can run them; arguments and errors as there."""
    if of not in CORRUPTIONS:
        raise InputError(f"noise is put on {', '.join(CORRUPTIONS)}; got {of!r}")
    n = model.n_layers
    bad = [w for w in windows if len(w) != 2 or not 0 <= w[0] <= w[1] < n]
    if bad or not windows or len(set(windows)) != len(windows):
        raise InputError(
            f"windows are different pairs of a first and a last block within 0 to {n - 1}; got {list(windows)}"
        )
    if draws < 1 or not amount > 0:
        raise InputError(f"draws must be at least 1 and amount above 0; got {draws} and {amount}")
    if of == "attention":
        return
    if scales is None or np.shape(scales) != (n,):
        raise ShapeError(
            f"noise on hidden states needs scales, a standard deviation for each of {n} layers; got "
            f"{'none' if scales is None else np.shape(scales)}"
        )
    found = np.asarray(scales, dtype=float)
    if not np.isfinite(found).all():
        raise NumericalError("a layer's standard deviation is NaN or infinite")
    if not (found > 0).all():
        raise InputError(
            f"hidden states of layer {int(np.argmin(found))} are constant: there is no scale for noise"
        )


def corruption_variants(
    batch: Batch,
    windows: Sequence[Window],
    *,
    of: Corrupted = "hidden states",
    scales: Sequence[float] | np.ndarray | None = None,
    amount: float = 1.0,
    draws: int = 5,
    seed: int = 0,
) -> tuple[list[Edits], list[Edits]]:
    """The edits that ``corrupt_windows`` sweeps, window by window and draw by draw, and the controls'."""

    def noisy(window: Window, draw: int, positions: Positions) -> Edits:
        found: list[Edits] = []
        for layer in range(window[0], window[1] + 1):
            if of != "attention" and scales is not None:
                sigma = amount * float(scales[layer])
                found.append(
                    noise(
                        "resid_post", sigma, layer=layer, positions=positions, seed=seed, draw=draw
                    )
                )
            if of != "hidden states":
                found.append(
                    noise("pattern", amount, layer=layer, positions=positions, seed=seed, draw=draw)
                )
        return found

    others = [other_positions(batch, draw, seed) for draw in range(draws)]
    edits = [noisy(window, draw, "last") for window in windows for draw in range(draws)]
    controls = [noisy(window, draw, others[draw]) for window in windows for draw in range(draws)]
    return edits, controls


def other_positions(batch: Batch, draw: int, seed: int) -> Each:
    """A random text position of each sample, not the last one: behind the image if any is, else any.

    Raises:
        InputError: a prompt has no other text.
    """
    places = []
    for i, (text, key) in enumerate(zip(batch.tokens.resolve("text"), batch.keys, strict=True)):
        there = (text - batch.tokens.length).numpy()
        image = batch.tokens.images[i].position
        behind = there[there > int(image.max()) - batch.tokens.length] if len(image) else there
        left = behind[behind < -1] if (behind < -1).any() else there[there < -1]
        if not len(left):
            raise InputError(f"the prompt of sample {i} has no text but its last token")
        digest = hashlib.sha256(f"other position {seed} {draw} {key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        places.append(int(left[rng.integers(len(left))]))
    return Each(tuple(places))


def _entropies(
    batch: Batch, windows: Sequence[Window], of: str, found: Scored, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Before [window, example] and after [window, draw, example], NaN where there is no map."""
    assert found.attention is not None
    assert found.clean_attention is not None
    after = np.full(shape, np.nan)
    before = np.full((shape[0], shape[2]), np.nan)
    runs = found.attention.reshape(*shape, *found.attention.shape[2:])
    for w, (first, last) in enumerate(windows):
        begin = 1 + (first if of == "hidden states" else last)
        if begin >= runs.shape[3]:
            continue
        for i, tokens in enumerate(batch.tokens.images):
            at = tokens.position.numpy()
            before[w, i] = entropy_shares(found.clean_attention[i, begin:, at].mean(1)[None])[0]
            after[w, :, i] = entropy_shares(runs[w, :, i, begin:][..., at].mean(1))
    return before, after
