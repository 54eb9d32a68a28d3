"""``image_flow``: at which layers image information reaches the text positions, by three methods.

Knockout (Geva et al. 2023, arXiv 2304.14767, section 5) asks where the answer *needs* the flow from image to
text; patching text positions from a run on another image asks how much of the answer they *carry* by a
depth; a probe asks what of the image *can be read* there, needed or not. They need not agree.

Where the whole prompt sees itself (PaliGemma), image positions see the text, too. Cutting "image to text"
leaves "question to image" as it is: image positions can take in the question and do part of the work before
the last position reads them, so a late cut can hurt where nothing is "late" about the text. There the edge
"question to image" is cut as well. And a text position patched at one layer sees the unpatched image's
states in the next, which under causal attention holds equally.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from mechvrp.circuits.flow_checks import check_positions
from mechvrp.circuits.flow_knockouts import flow_edges, knockout_points
from mechvrp.circuits.image_probe import Content, content_labels, probe_points
from mechvrp.circuits.integration_results import FlowMethod, FlowPoint, ImageFlow
from mechvrp.circuits.patched_shares import PATCHED, PatchedShares, patched_shares
from mechvrp.circuits.sample_checks import check_questions, of_two_images
from mechvrp.circuits.setting_checks import check_model, check_reading, check_settings, whole
from mechvrp.data import Sample
from mechvrp.data.scene_counterfactual import counterfactual_pair
from mechvrp.errors import DataError, InputError, NumericalError
from mechvrp.models import fingerprint
from mechvrp.models.tokens import integers
from mechvrp.patching.knockouts import check_edge
from mechvrp.patching.places import chosen_layers

if TYPE_CHECKING:
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["image_flow"]

_MEASURES = ("logit_diff", "probability", "logit")
_CONTROLS = {
    "knockout": "at least as many attention edges cut between random image positions",
    "patching": "as many random image positions patched",
    "probe": "training labels permuted (mean and range of the draws)",
}


def image_flow(
    model: VLM,
    samples: Sequence[Sample],
    *,
    others: Sequence[Sample | None] | None = None,
    content: Content | Mapping[str, Content] | None = None,
    methods: Sequence[FlowMethod] | None = None,
    edges: Mapping[str, tuple[Positions, Positions]] | None = None,
    windows: int | Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    measure: Literal["logit_diff", "probability", "logit"] = "logit_diff",
    draws: int = 1,
    shuffles: int = 10,
    folds: int = 5,
    reading: Literal["official", "strict"] = "strict",
    seed: int = 0,
    n_resamples: int = 2000,
    batch_size: int = 32,
    progress: bool = False,
) -> ImageFlow:
    """At which layers image information reaches the text positions.

    Args:
        model: from ``mechvrp.load``.
        samples: what is asked, of two images or more.
        others: for patching, for each sample one with the same question about another image of the same
            size (None: leave it out); by default ``counterfactual_pair`` of the digit scenes' existence and
            identification samples.
        content: for the probe, a property of the image that the question does not tell, as a function of the
            sample that gives True, False or None (unknown), or several by name; by default, for the digit
            scenes, whether the digit asked for is there.
        methods: which of ``"knockout"``, ``"patching"`` and ``"probe"``; by default all, and a property that
            too few images have for a probe is then a gap in the result, with the reason. A probe that was
            named and cannot be fitted is refused.
        edges: for the knockout, as ``attention_knockout``; by default ``flow_edges(model)``.
        windows: layers cut together, one width or several; by default a fifth of the layers, at least one.
        layers: by default all.
        measure: of the clean run's answer, for knockout and patching. A knockout's ``"logit_diff"`` is
            against the best other token of each run, a patch's against the answer to the other image.
        draws: of the controls of knockout and patching, random positions drawn anew for each batch; 0: none.
            Intervals resample images; of two draws or more, those of the control and of the lead resample
            draws as well (``control_kind`` says so).
        shuffles: of the probe's labels.
        folds: of the probe's cross-validation, within one half of the images.
        reading: how yes/no answers are read, for accuracy. An answer is read from its first token.
        seed: of everything drawn.
        n_resamples: of images, behind each interval.
        batch_size, progress: of the runs.

    Raises:
        InputError: no window, a property that cannot be probed (see ``methods``), edges that attention does
            not have, samples of one image, or settings that cannot be used: before anything runs. Pairs that
            do not align.
    """
    check_model(model)
    given = of_two_images(samples)
    asked: tuple[Any, ...] = get_args(FlowMethod)
    if methods is not None:
        asked = tuple(methods) if isinstance(methods, Iterable) else (methods,)
    wanted = [m for m in get_args(FlowMethod) if m in asked]
    if not wanted or any(m not in wanted for m in asked):
        raise InputError(f"methods are among {', '.join(get_args(FlowMethod))}; got {methods!r}")
    if measure not in _MEASURES:
        raise InputError(f"measure is one of {', '.join(_MEASURES)}; got {measure!r}")
    draws, shuffles = whole("draws", draws, 0), whole("shuffles", shuffles, 0)
    folds = whole("folds", folds, 2)
    checked = check_settings(seed=seed, n_resamples=n_resamples, batch_size=batch_size)
    seed, n_resamples = checked["seed"], checked["n_resamples"]
    check_reading(reading)
    chosen = chosen_layers(model, layers)
    widths = _widths(model, windows)
    pairs = _pairs(given, others, seed) if "patching" in wanted else []
    labels = {}
    if "probe" in wanted:
        labels = content_labels(given, content, folds=folds, gaps=methods is None)
    if edges is not None and not isinstance(edges, Mapping):
        raise InputError(f"edges are query and key positions by name; got {edges!r:.60}")
    cut = flow_edges(model) if edges is None else dict(edges)
    if "knockout" in wanted:
        _check_edges(model, given, cut, checked["batch_size"])

    options: dict[str, Any] = {"seed": seed, "batch_size": checked["batch_size"]}
    options["progress"] = progress
    points: list[FlowPoint] = []
    shares: PatchedShares | None = None
    unchanged = len(pairs)
    if "patching" in wanted:
        found = patched_shares(
            model,
            [pair[0] for pair in pairs],
            [pair[1] for pair in pairs],
            layers=chosen,
            measure=measure,
            draws=draws,
            **options,
        )
        gap = ""
        if isinstance(found, str):
            gap = found
        else:
            unchanged = found.unchanged
            gap = _no_share(found, seed, n_resamples)
            shares = None if gap else found
        points += _share_points(shares, gap, chosen, seed, n_resamples)
    options["n_resamples"] = n_resamples
    if "knockout" in wanted:
        points += knockout_points(
            model,
            given,
            edges=cut,
            windows=widths,
            layers=chosen,
            measure=measure,
            draws=draws,
            reading=reading,
            **options,
        )
    if "probe" in wanted:
        points += probe_points(
            model, given, labels, layers=chosen, shuffles=shuffles, folds=folds, **options
        )
    return ImageFlow(
        model=model.name,
        fingerprint=fingerprint(model),
        n_layers=model.n_layers,
        attention=model.family.attention,
        points=tuple(sorted(points, key=lambda point: wanted.index(point.method))),
        controls={name: _CONTROLS[name] + _over(name, draws) for name in wanted},
        shares=shares,
        settings={
            "measure": measure,
            "windows": widths,
            "edges": {name: [str(q), str(k)] for name, (q, k) in cut.items()},
            "draws": draws,
            "shuffles": shuffles,
            "folds": folds,
            "reading": reading,
            "seed": seed,
            "n_resamples": n_resamples,
            "samples": len(given),
            "pairs": len(pairs),
            "unchanged_pairs": unchanged,
        },
    )


def _over(method: str, draws: int) -> str:
    """What the intervals of a control are over, in words."""
    if method == "probe" or not draws:
        return ""
    if draws == 1:
        return "; of one draw, so intervals resample images and not draws"
    return f"; intervals resample images and its {draws} draws"


def _no_share(found: PatchedShares, seed: int, n_resamples: int) -> str:
    """Why there are no shares; empty where there are."""
    if len(set(found.images.tolist())) < 2:
        return "the answer changes for pairs of one image only"
    try:
        found.total(seed=seed, n_resamples=n_resamples)
    except NumericalError as error:
        return str(error)
    return ""


def _check_edges(
    model: VLM,
    samples: Sequence[Sample],
    edges: Mapping[str, tuple[Positions, Positions]],
    batch_size: int,
) -> None:
    if not edges:
        raise InputError("edges is empty: give at least one, or methods without 'knockout'")
    first = model.encode(samples[:batch_size])
    for name, ends in edges.items():
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise InputError(
                f"edge {name!r} is a pair of query and key positions; got {ends!r:.60}"
            )
        for positions in ends:
            check_positions(model, samples, positions)
        check_edge(model, first, name, *ends)


def _widths(model: VLM, windows: int | Sequence[int] | None) -> list[int]:
    if windows is None:
        return [max(1, round(model.n_layers / 5))]
    found = list(integers("windows", windows))
    if not found or min(found) < 1 or len(set(found)) != len(found):
        raise InputError(
            f"windows are widths of at least 1 layer, each given once; got {windows!r}"
        )
    return found


def _pairs(
    samples: Sequence[Sample], others: Sequence[Sample | None] | None, seed: int
) -> list[tuple[Sample, Sample]]:
    """Samples with their counterparts, checked as far as can be without encoding them."""
    if others is None:
        return _scene_pairs(samples, seed)
    if not isinstance(others, Iterable):
        raise InputError(f"others holds a sample, or None, for each; got {others!r:.60}")
    others = list(others)
    strange = [one for one in others if one is not None and not isinstance(one, Sample)]
    if strange:
        raise InputError(
            f"others holds {strange[0]!r:.60} ({type(strange[0]).__name__}); give a sample each, None to "
            "leave one out"
        )
    if len(others) != len(samples):
        raise InputError(
            f"others holds {len(others)} samples for {len(samples)}; give one each, None to leave one out"
        )
    pairs = [(s, o) for s, o in zip(samples, others, strict=True) if o is not None]
    if not pairs:
        raise InputError("others holds no sample: give some, or methods without 'patching'")
    check_questions(pairs, "give one with the same question")
    for sample, other in pairs:
        if sample.image_id == other.image_id:
            raise InputError(f"{sample!r} is paired with its own image; give one of another image")
    return pairs


def _scene_pairs(samples: Sequence[Sample], seed: int) -> list[tuple[Sample, Sample]]:
    pairs = []
    for sample in samples:
        if sample.task in ("existence", "identification"):
            try:
                pairs.append((sample, counterfactual_pair(sample, seed)))
            except DataError as error:
                raise InputError(
                    f"there are counterfactuals of original digit scenes only ({error}): give others=, a "
                    "sample with the same question about another image for each, or methods without "
                    "'patching'"
                ) from error
    if not pairs:
        raise InputError(
            "no sample is an existence or identification of the digit scenes, which have counterfactuals: "
            "give others=, or methods without 'patching'"
        )
    return pairs


def _share_points(
    shares: PatchedShares | None, gap: str, layers: Sequence[int], seed: int, n_resamples: int
) -> list[FlowPoint]:
    points = []
    for what in PATCHED:
        if shares is None:
            points += [FlowPoint("patching", what, "share", layer, gap=gap) for layer in layers]
            continue
        found = shares.estimates(what, seed=seed, n_resamples=n_resamples)
        points += [
            FlowPoint("patching", what, "share", layer, value=value, control=control, lead=lead)
            for layer, (value, control, lead) in zip(layers, found, strict=True)
        ]
    return points
