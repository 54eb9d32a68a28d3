"""``Explorer``: one model, one dataset, and what a person looks at; plain Python, without any widget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from mechvrp.circuits import AblationCurve, FittedProbe
from mechvrp.errors import InputError, UnavailableError
from mechvrp.explorer import coding
from mechvrp.explorer.drafting import Draft
from mechvrp.explorer.examples import Examples
from mechvrp.explorer.growing import circuit_curves
from mechvrp.explorer.jobs import Job
from mechvrp.explorer.maps import Cells, EffectMap, effect_map, grid_of, plan_map
from mechvrp.explorer.outcomes import Kind, Outcome, outcome_of
from mechvrp.explorer.places import Place
from mechvrp.models import VLM
from mechvrp.patching import mean, resample, zero
from mechvrp.patching.measures import first_token
from mechvrp.tracing import Activations, Site, cache
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import Batch
    from mechvrp.patching.interventions import Edits
    from mechvrp.reliability import Monitor, MonitorAnswer

__all__ = ["CurveView", "Explorer"]

#: Encoded examples with their clean runs, and caches of other examples' values, that are kept.
_KEPT = 32
_CACHES = 8


class CurveView(NamedTuple):
    """An ablation curve of the circuit, and the Python that gives it again."""

    curve: AblationCurve
    indices: tuple[int, ...]
    code: str


class _Clean(NamedTuple):
    batch: Batch
    logits: Tensor  # [d_vocab], float32
    probed: float | None
    right: int | None


class Explorer:
    """What ``mechvrp.explore`` shows, as a plain object: choose, run, map, build a circuit.

    Everything that is chosen is checked first, and stays as it was where that fails or work is cancelled.
    What does not change is kept: encoded examples, their clean runs, other examples' activations. One
    thread at a time may use it, and the model.

    Args:
        model: from ``mechvrp.load``.
        dataset: samples.
        monitor: whose reliability of clean answers is shown.
        probe: whose probability that the answer is right is shown, in clean and edited runs.
        probe_site: hook name of the site that the probe reads, at the last prompt position.
        reference: the first so many examples of the dataset are what means are taken over.
        reading: of yes/no answers (``mechvrp.data.score``).
        max_new_tokens: at which answers are cut.

    Attributes:
        examples: the dataset, answers so far, and filters.
        index: number of the chosen example.
        place: the chosen site, positions, units and heads.
        circuit: the circuit in the making.
    """

    def __init__(
        self,
        model: VLM,
        dataset: Sequence[Sample],
        *,
        monitor: Monitor | None = None,
        probe: FittedProbe | None = None,
        probe_site: str | None = None,
        reference: int = 64,
        reading: Literal["official", "strict"] = "strict",
        max_new_tokens: int = 16,
    ) -> None:
        if not isinstance(model, VLM):
            raise InputError(f"model is one from mechvrp.load; got {type(model).__name__}")
        if model.processor is None:
            raise UnavailableError(
                f"{model.name} was loaded without a processor, so it cannot encode examples: give one to "
                "mechvrp.load(model, processor=...)"
            )
        if monitor is not None:
            monitor.model.check(model)
        if (probe is None) != (probe_site is None):
            raise InputError(
                "a probe comes with probe_site, the hook name of what it reads, and vice versa"
            )
        self._probe: tuple[FittedProbe, Site] | None = None
        if probe is not None and probe_site is not None:
            site = Site.parse(probe_site).check(model)
            if site.kind.dims != ("batch", "pos", "d_model") or site.component == "embed":
                raise InputError(
                    f"a probe reads the residual stream at a layer; {site} is not that"
                )
            if len(probe.coef) != model.d_model:
                raise InputError(
                    f"the probe reads {len(probe.coef)} dimensions; {site} of {model.name} has "
                    f"{model.d_model}"
                )
            self._probe = probe, site
        if reference < 1:
            raise InputError(f"reference is a number of examples, at least 1; got {reference}")
        self.model = model
        self.examples = Examples(model, dataset, reading, max_new_tokens)
        self.monitor = monitor
        self.reference = min(int(reference), len(dataset))
        self.index = 0
        self.place = Place("mlp_out", model.n_layers // 2)
        self.circuit = Draft(model)
        self.looked: set[str] = set()
        self._cleans: OrderedDict[int, _Clean] = OrderedDict()
        self._caches: OrderedDict[Any, Activations] = OrderedDict()
        self._batches: OrderedDict[tuple[int, ...], Batch] = OrderedDict()

    # ---- choosing ---------------------------------------------------------------------------

    @property
    def sample(self) -> Sample:
        """The chosen example."""
        return self.examples[self.index]

    @property
    def batch(self) -> Batch:
        """The chosen example, encoded by itself."""
        return self._clean(self.index).batch

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the image's tokens; None where they stand on no single grid."""
        try:
            return grid_of(self.batch)
        except UnavailableError:
            return None

    @property
    def seen_box(self) -> tuple[float, float, float, float]:
        """What of the image the grid covers: left, top, right, bottom, as shares of its width and height."""
        images = getattr(self.model.processor, "image_processor", None)
        if not getattr(images, "do_center_crop", False):
            return 0.0, 0.0, 1.0, 1.0
        width, height = self.sample.image.size
        side = min(width, height)
        x, y = (1 - side / width) / 2, (1 - side / height) / 2
        return x, y, 1 - x, 1 - y

    def choose(self, index: int) -> None:
        """Go to another example; the place stays, if that example has it.

        Raises:
            InputError: no such example.
            SiteError: it has not the chosen positions (a patch outside its grid, say).
        """
        number = self.examples.index(index)
        self.place.check(self.model, self._clean(number).batch)
        self.index = number

    def look(
        self,
        component: str,
        layer: int | None = None,
        positions: Any = "last",
        *,
        units: Any = None,
        heads: Any = None,
    ) -> Place:
        """Choose a place, as an intervention's arguments do.

        Raises:
            SiteError: the model or the example does not have it.
        """
        found = Place(component, layer, positions, units, heads)
        found.check(self.model, self.batch)
        self.place = found
        return found

    # ---- one example ------------------------------------------------------------------------

    def clean(self) -> Outcome:
        """The chosen example without an intervention."""
        return self._outcome("clean", "", None, "", "")

    def reliability(self) -> MonitorAnswer | None:
        """What the monitor says of the clean answer; None without one."""
        if self.monitor is None:
            return None
        return self.monitor.answers(self.model, [self.sample])[0]

    def ablated(
        self,
        method: Literal["zero", "mean"] = "zero",
        *,
        circuit: bool = False,
        job: Job | None = None,
    ) -> Outcome:
        """The chosen place (or the circuit's nodes) taken away.

        Args:
            method: ``"zero"``, or ``"mean"``: the mean over the reference examples, pooled over the chosen
                positions; of a place only.
            circuit: the circuit in the place of the place.
            job: asked whether to go on while the mean's examples are run.
        """
        if method not in ("zero", "mean"):
            raise InputError(f"method is 'zero' or 'mean'; got {method!r}")
        if circuit:
            if method == "mean":
                raise InputError("a circuit is zeroed or patched here; Circuit.edits takes means")
            edits: Edits = self.circuit.circuit().edits(
                self.model, self.batch, "zero", ablate="circuit"
            )
            what = f"{self._circuit_name()} zeroed"
            made = 'circuit.edits(model, batch, "zero", ablate="circuit")'
            return self._outcome("ablated", what, edits, self.circuit.code(), made)
        place = self.place
        if method == "zero":
            edits = zero(place.site, **place.selected)
        else:
            over = self._reference(place, job)
            edits = mean(place.site, over, **place.selected)
        setup, made = coding.place_edit(place, method, self.reference)
        return self._outcome("ablated", f"{place}: {method}", edits, setup, made)

    def patched(self, donor: int, *, circuit: bool = False) -> Outcome:
        """The chosen place (or the circuit's nodes) given the values of another example.

        Tokens are matched by their patch, or counted from the end of the prompt.

        Args:
            donor: number of the other example.
            circuit: the circuit in the place of the place; both prompts must then be of one length.

        Raises:
            SiteError: the donor has no such position.
            InputError: the donor is the example itself, or the prompts are not aligned.
        """
        donor = self.examples.index(donor)
        if donor == self.index:
            raise InputError(f"example {donor} is the one that is patched; choose another as donor")
        if circuit:
            edits: Edits = self.circuit.circuit().edits(
                self.model,
                self.batch,
                "counterfactual",
                reference=self._clean(donor).batch,
                ablate="circuit",
            )
            what = f"{self._circuit_name()} patched from example {donor}"
            made = (
                'circuit.edits(model, batch, "counterfactual", reference=model.encode('
                f'dataset[{donor}]), ablate="circuit")'
            )
            return self._outcome("patched", what, edits, self.circuit.code(), made)
        place = self.place
        over = self._donor(donor, place.site, place.positions)
        edits = resample(place.site, over, **place.selected)
        setup, made = coding.place_edit(place, "patch", donor)
        return self._outcome("patched", f"{place}: from example {donor}", edits, setup, made)

    def map(
        self, cells: Cells = "tokens", *, donor: int | None = None, job: Job | None = None
    ) -> EffectMap:
        """What each cell by itself does to the answer, zeroed or patched from a donor.

        Args:
            cells: ``"tokens"`` (layers by tokens, the image as one), ``"patches"`` (of the place's layer),
                ``"heads"`` (layers by heads, at the place's positions) or ``"units"`` (of the place's site, at
                its positions).
            donor: number of another example; None: zero.
            job: told of progress.

        Raises:
            Cancelled: the job was cancelled; nothing is changed by that.
            UnavailableError: no grid of patches.
        """
        plan = plan_map(self.model, self.batch, self.place, cells)
        over = None
        if donor is not None:
            donor = self.examples.index(donor)
            if donor == self.index:
                raise InputError(
                    f"example {donor} is the one that is patched; choose another as donor"
                )
            over = self._donor(donor, plan.component, "all")
        return effect_map(
            self.model, self.batch, plan, self.index, over, donor_index=donor, job=job
        )

    # ---- many examples ----------------------------------------------------------------------

    def curve_examples(self, n: int = 64) -> tuple[int, ...]:
        """The first ``n`` examples whose images were not looked at: a circuit is judged on others.

        Raises:
            InputError: there are fewer than two such images.
        """
        found: list[int] = []
        images: set[str] = set()
        for i, sample in enumerate(self.examples.dataset):
            if sample.image_id not in self.looked and sample.answer.strip():
                found.append(i)
                images.add(sample.image_id)
            if len(found) == n:
                break
        if len(images) < 2:
            raise InputError(
                "fewer than two images with answers are left that were not looked at; explore a larger "
                "dataset to measure a circuit on it"
            )
        return tuple(found)

    def curve(
        self,
        n: int = 64,
        *,
        draws: int = 9,
        seed: int = 0,
        batch_size: int = 16,
        job: Job | None = None,
        on_curve: Callable[[CurveView], None] | None = None,
    ) -> CurveView:
        """Zero the circuit's first k nodes, beside random ones, on examples that were not looked at.

        Args:
            n: examples.
            draws: random sets of each size.
            seed: of the draws.
            batch_size: examples between two curves.
            job: told of progress, and asked whether to go on.
            on_curve: given the curve so far, after each batch.

        Raises:
            Cancelled: the job was cancelled. The curves so far were given to ``on_curve``.
        """
        job = job or Job()
        self.circuit.circuit()  # refuses an empty one
        indices = self.curve_examples(n)
        code = coding.curve(self.circuit, indices, draws, seed, batch_size, self.examples.reading)
        chunks = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
        done = 0

        def encode(_: Sequence[Sample]) -> Batch:
            nonlocal done
            job.step("curve", done, len(indices))
            chunk = chunks[done // batch_size]
            done += len(chunk)
            return self._kept(
                self._batches,
                chunk,
                lambda: self.model.encode([self.examples.dataset[i] for i in chunk]),
                _CACHES,
            )

        found = None
        for curve in circuit_curves(
            self.model,
            [self.examples.dataset[i] for i in indices],
            self.circuit.nodes,
            draws=draws,
            seed=seed,
            reading=self.examples.reading,
            batch_size=batch_size,
            step=job.check,
            encode=encode,
        ):
            found = CurveView(curve, indices, code)
            if on_curve is not None:
                on_curve(found)
        job.step("curve", len(indices), len(indices))
        assert found is not None
        return found

    # ---- running ----------------------------------------------------------------------------

    def _outcome(
        self, kind: Kind, what: str, edits: Edits | None, setup: str, made: str
    ) -> Outcome:
        clean = self._clean(self.index)
        self.looked.add(self.sample.image_id)
        after = probed = None
        if edits is not None:
            after, probed = self._run(clean.batch, edits)
        site = None if self._probe is None else str(self._probe[1])
        return outcome_of(
            self.model,
            kind,
            self.index,
            clean.logits,
            after,
            clean.right,
            what=what,
            reliability_before=clean.probed,
            reliability_after=probed,
            code=coding.outcome(self.index, setup, made, site),
        )

    def _run(self, batch: Batch, edits: Edits) -> tuple[Tensor, float | None]:
        """Logits of the last position, float32 on the CPU, and what the probe reads there."""
        state = None
        with Trace(self.model, batch, options={"logits_to_keep": 1}) as t:
            t.apply(edits)
            if self._probe is not None:
                state = t[self._probe[1]][0, -1].save()
            logits = t.logits[0, -1].save()
        probed = None
        if self._probe is not None and state is not None:
            row = state.float().cpu().numpy()[None].astype(np.float64)
            probed = float(self._probe[0].probabilities(row)[0])
        return logits.float().cpu(), probed

    def _clean(self, index: int) -> _Clean:
        return self._kept(self._cleans, index, lambda: self._run_clean(index), _KEPT)

    def _run_clean(self, index: int) -> _Clean:
        sample = self.examples[index]
        batch = self.model.encode(sample)
        logits, probed = self._run(batch, ())
        right = None
        if sample.answer.strip():
            with suppress(UnavailableError):  # no token begins this answer: none is marked as right
                right = first_token(self.model, sample, logits)
        return _Clean(batch, logits, probed, right)

    def _reference(self, place: Place, job: Job | None) -> Activations:
        job = job or Job()
        samples = self.examples.dataset[: self.reference]

        def counted() -> Any:
            for done, sample in enumerate(samples):
                job.step("reading the reference", done, len(samples))
                yield sample

        key = ("mean", place.site, repr(place.positions))
        return self._kept(
            self._caches,
            key,
            lambda: cache(self.model, counted(), place.site, positions=place.positions),
            _CACHES,
        )

    def _donor(self, donor: int, site: str | Site, positions: Any) -> Activations:
        key = ("donor", donor, str(site), repr(positions))
        return self._kept(
            self._caches,
            key,
            lambda: cache(self.model, [self.examples[donor]], site, positions=positions),
            _CACHES,
        )

    def _circuit_name(self) -> str:
        name = f" {self.circuit.name!r}" if self.circuit.name else ""
        return f"the circuit{name} of {len(self.circuit)} nodes"

    @staticmethod
    def _kept(held: OrderedDict[Any, Any], key: Any, make: Callable[[], Any], most: int) -> Any:
        """What was made before, or is made now; only so many are kept, the last used ones."""
        if key not in held:
            held[key] = make()
            while len(held) > most:
                held.popitem(last=False)
        held.move_to_end(key)
        return held[key]
