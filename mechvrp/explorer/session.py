"""``Explorer``: one model, one dataset, and what a person looks at; plain Python, without any widget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mechvrp.circuits import AblationCurve, FittedProbe, Ranking
from mechvrp.circuits.setting_checks import check_settings, whole
from mechvrp.errors import InputError, UnavailableError
from mechvrp.explorer import coding, editing
from mechvrp.explorer.drafting import Draft, named_rankings
from mechvrp.explorer.editing import Done, Method
from mechvrp.explorer.examples import Examples
from mechvrp.explorer.growing import circuit_curves, curve_sites
from mechvrp.explorer.jobs import Job
from mechvrp.explorer.maps import Cells, EffectMap, effect_map, grid_of, plan_map
from mechvrp.explorer.outcomes import Kind, Outcome, outcome_of
from mechvrp.explorer.places import Place
from mechvrp.explorer.running import Probing, Runs
from mechvrp.models import VLM
from mechvrp.reliability import Monitor

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import Batch
    from mechvrp.reliability import MonitorAnswer

__all__ = ["CurveView", "Explorer"]


class CurveView(NamedTuple):
    """An ablation curve of the circuit, and the Python that gives it again."""

    curve: AblationCurve
    indices: tuple[int, ...]
    method: Method
    code: str


class Explorer:
    """What ``mechvrp.explore`` shows, as a plain object: choose, run, map, build a circuit.

    Everything that is chosen is checked first, and stays as it was where that fails or work is cancelled.
    What does not change is kept: encoded examples, their clean runs, other examples' activations. One
    thread at a time may use it; others may run the model meanwhile, and take turns with it.

    Args:
        model: from ``mechvrp.load``.
        dataset: samples.
        monitor: whose reliability of clean answers is shown.
        probe: whose probability that the answer is right is shown, in clean and edited runs.
        probe_site: hook name of the site that the probe reads, at the last prompt position.
        reference: the first so many examples of the dataset are what means are taken over.
        reading: of yes/no answers (``mechvrp.data.score``).
        max_new_tokens: at which answers are cut.
        rankings: of units, by name (or a list: they are named by method and site), whose top can be taken
            into the circuit.

    Attributes:
        examples: the dataset, answers so far, and filters.
        index: number of the chosen example.
        place: the chosen site, positions, units and heads.
        circuit: the circuit in the making.
        looked: ids of images that were looked at (as donors too), or that a ranking was made from: a
            circuit is judged on others.
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
        rankings: Mapping[str, Ranking] | Sequence[Ranking] | None = None,
    ) -> None:
        if not isinstance(model, VLM):
            raise InputError(f"model is one from mechvrp.load; got {type(model).__name__}")
        if model.processor is None:
            raise UnavailableError(
                f"{model.name} was loaded without a processor, so it cannot encode examples: give one to "
                "mechvrp.load(model, processor=...)"
            )
        if monitor is not None:
            if not isinstance(monitor, Monitor):
                raise InputError(f"monitor is a mechvrp.reliability.Monitor; got {monitor!r:.60}")
            monitor.model.check(model)
        probing = Probing.check(model, probe, probe_site)
        self.model = model
        self.examples = Examples(model, dataset, reading, max_new_tokens)
        self.monitor = monitor
        self.rankings = named_rankings(model, rankings)
        self.index = 0
        self.place = Place("mlp_out", model.n_layers // 2)
        self.circuit = Draft(model)
        self.looked: set[str] = set()
        self._runs = Runs(model, self.examples, probing, reference)

    @property
    def reference(self) -> int:
        """Number of examples that means are over, the first of the dataset."""
        return self._runs.reference

    # ---- choosing ---------------------------------------------------------------------------

    @property
    def sample(self) -> Sample:
        """The chosen example."""
        return self.examples[self.index]

    @property
    def batch(self) -> Batch:
        """The chosen example, encoded by itself."""
        return self._runs.clean(self.index).batch

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
        self.place.check(self.model, self._runs.clean(number).batch)
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
        self.place = replace(found, layer=found.site.check(self.model).layer)
        return self.place

    # ---- one example ------------------------------------------------------------------------

    def clean(self) -> Outcome:
        """The chosen example without an intervention."""
        return self._outcome("clean", None)

    def reliability(self) -> MonitorAnswer | None:
        """What the monitor says of the clean answer; None without one."""
        if self.monitor is None:
            return None
        return self.monitor.answers(self.model, [self.sample])[0]

    def ablated(
        self, method: Method = "zero", *, circuit: bool = False, job: Job | None = None
    ) -> Outcome:
        """The chosen place (or the circuit's nodes) taken away.

        Args:
            method: ``"zero"``, or ``"mean"``: the mean over the reference examples. Of a place at named
                positions it is one mean over all of these, at a token or patches that of the same one; of
                a circuit's nodes one of image tokens, one of last tokens and one of other text.
            circuit: the circuit in the place of the place.
            job: asked whether to go on while the mean's examples are run.

        Raises:
            InputError: no such method, an empty circuit, or more values than 4 GB to take means over.
        """
        if circuit:
            done = editing.circuit_edit(self._runs, self.circuit, self.batch, method, job=job)
        else:
            done = editing.place_edit(self._runs, self.place, method, job)
        return self._outcome("ablated", done)

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
        donor = self._donor(donor)
        if circuit:
            done = editing.circuit_edit(self._runs, self.circuit, self.batch, "patch", donor)
        else:
            done = editing.place_patch(self._runs, self.place, donor)
        return self._outcome("patched", done, donor)

    def map(
        self,
        cells: Cells = "tokens",
        method: Method = "zero",
        *,
        donor: int | None = None,
        job: Job | None = None,
    ) -> EffectMap:
        """What each cell by itself does to the answer, taken away or patched from a donor.

        Args:
            cells: ``"tokens"`` (layers by tokens, the image as one), ``"patches"`` (of the place's layer),
                ``"heads"`` (layers by heads, at the place's positions) or ``"units"`` (of the place's site, at
                its positions).
            method: as in ``ablated``; each cell is what that gives for its place.
            donor: number of another example, whose values are put in; None: ``method``.
            job: told of progress.

        Raises:
            Cancelled: the job was cancelled; nothing is changed by that.
            UnavailableError: no grid of patches.
            InputError: no such method, or more values than 4 GB to take means over.
        """
        plan = plan_map(self.model, self.batch, self.place, cells)
        done: Method | Literal["patch"] = method
        if donor is not None:
            done, donor = "patch", self._donor(donor)
        edits, lines = editing.map_edits(self._runs, plan, done, donor, job)
        found = effect_map(self.model, self.batch, plan, self.index, done, edits, lines, job)
        self._look_at(self.index, donor)
        return found

    # ---- the circuit ------------------------------------------------------------------------

    def add_top(self, ranking: str, k: int) -> None:
        """Take the top k units of one of ``rankings`` into the circuit, those that are in it already aside.

        The images that the ranking was made from count as looked at.

        Raises:
            InputError: no such ranking, or all of its top k are in the circuit already.
        """
        if ranking not in self.rankings:
            known = ", ".join(map(repr, self.rankings)) or "none were given (rankings=...)"
            raise InputError(f"no ranking {ranking!r}; there are: {known}")
        found = self.rankings[ranking]
        self.circuit.add_top(found, k)
        self.looked |= found.images

    # ---- many examples ----------------------------------------------------------------------

    def curve_examples(self, n: int = 64, method: Method = "zero") -> tuple[int, ...]:
        """The first ``n`` examples whose images were not looked at: a circuit is judged on others.

        Args:
            n: how many.
            method: with ``"mean"``, images of the reference examples are left out too.

        Raises:
            InputError: there are fewer than two such images, or not among so few examples.
        """
        n = whole("n", n, 2)
        editing.check_method(method)
        taken, more = set(self.looked), ""
        if method == "mean":
            taken |= {sample.source_id for sample in self.examples.dataset[: self.reference]}
            more = " and are not among the reference examples"
        return self.examples.beside(taken, n, f"were not looked at{more}")

    def curve(
        self,
        n: int = 64,
        method: Method = "zero",
        *,
        draws: int = 9,
        seed: int = 0,
        batch_size: int = 16,
        job: Job | None = None,
        on_curve: Callable[[CurveView], None] | None = None,
    ) -> CurveView:
        """Take the circuit's first k nodes away, beside random ones, on examples that were not looked at.

        Args:
            n: examples.
            method: ``"zero"`` or ``"mean"``, as for a circuit in ``ablated``.
            draws: random sets of each size.
            seed: of the draws.
            batch_size: examples between two curves.
            job: told of progress, and asked whether to go on.
            on_curve: given the curve so far, after each batch.

        Raises:
            Cancelled: the job was cancelled. The curves so far were given to ``on_curve``.
            InputError: an empty circuit, too few examples, or more values than 4 GB to take means over.
        """
        job = job or Job()
        self.circuit.circuit()  # refuses an empty one
        whole("draws", draws, 1)
        check_settings(seed=seed, batch_size=batch_size)
        nodes = self.circuit.nodes
        indices = self.curve_examples(n, method)
        over = None
        if method != "zero":
            over = self._runs.means_over(curve_sites(self.model, nodes, draws, seed), "all", job)
        chunks = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
        waiting = iter(chunks)

        def encode(_: Sequence[Sample]) -> Batch:
            chunk = next(waiting)
            job.step("curve", indices.index(chunk[0]), len(indices))
            return self._runs.encoded(chunk)

        found = None
        for curve in circuit_curves(
            self.model,
            [self.examples.dataset[i] for i in indices],
            nodes,
            mode=method,
            reference=over,
            draws=draws,
            seed=seed,
            reading=self.examples.reading,
            batch_size=batch_size,
            step=job.check,
            encode=encode,
        ):
            code = coding.curve(
                self.circuit, indices, draws, seed, batch_size, self.examples.reading,
                self.reference if method == "mean" else None,
            )  # fmt: skip
            found = CurveView(curve, indices, method, code)
            if on_curve is not None:
                on_curve(found)
        job.step("curve", len(indices), len(indices))
        assert found is not None
        return found

    # ---- all of these -----------------------------------------------------------------------

    def _donor(self, donor: int) -> int:
        number = self.examples.index(donor)
        if number == self.index:
            raise InputError(f"example {donor} is the one that is patched; choose another as donor")
        return number

    def _look_at(self, *indices: int | None) -> None:
        self.looked |= {self.examples[i].source_id for i in indices if i is not None}

    def _outcome(self, kind: Kind, done: Done | None, donor: int | None = None) -> Outcome:
        runs = self._runs
        batch, clean, right = runs.clean(self.index)
        self._look_at(self.index, donor)
        edited = None if done is None else runs.run(batch, done.edits)
        code = coding.outcome(
            self.index,
            "" if done is None else done.setup,
            "" if done is None else done.made,
            None if runs.probing is None else str(runs.probing.site),
            None if runs.no_answers else self.examples.max_new_tokens,
        )
        return outcome_of(
            self.model,
            kind,
            self.index,
            clean.logits,
            None if edited is None else edited.logits,
            right,
            what="" if done is None else done.what,
            answer_before=clean.answer,
            answer_after=None if edited is None else edited.answer,
            no_answers=runs.no_answers,
            reliability_before=clean.probed,
            reliability_after=None if edited is None else edited.probed,
            code=code,
        )
