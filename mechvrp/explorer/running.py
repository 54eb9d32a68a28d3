"""``Runs``: an explorer's runs of the model, and what of them is kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from mechvrp.circuits import FittedProbe
from mechvrp.circuits.setting_checks import whole
from mechvrp.errors import InputError, UnavailableError
from mechvrp.explorer.answering import decode_on
from mechvrp.explorer.jobs import Job
from mechvrp.patching.measures import first_token
from mechvrp.reliability.continuing import check_plain_decoding
from mechvrp.tracing import Activations, Site, cache
from mechvrp.tracing.sites import expand_sites
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.explorer.examples import Examples
    from mechvrp.models import VLM, Batch
    from mechvrp.patching.interventions import Edits

__all__ = ["CleanRun", "Probing", "Ran", "Runs"]

#: Encoded examples with their clean runs, and caches of other examples' values, that are kept.
_KEPT = 32
_CACHES = 8

#: Bytes that the values of the reference examples may take.
_MEMORY = 4_000_000_000


class Probing(NamedTuple):
    """A probe and the site that it reads, at the last prompt position."""

    probe: FittedProbe
    site: Site

    @classmethod
    def check(cls, model: VLM, probe: FittedProbe | None, name: str | None) -> Probing | None:
        """The two together, if they are given.

        Raises:
            InputError: one without the other, or they fit neither each other nor the model.
        """
        if probe is None and name is None:
            return None
        if probe is None or name is None:
            raise InputError(
                "a probe comes with probe_site, the hook name of what it reads, and vice versa"
            )
        if not isinstance(probe, FittedProbe):
            raise InputError(f"probe is a mechvrp.circuits.FittedProbe; got {probe!r:.60}")
        site = Site.parse(name).check(model)
        if site.kind.dims != ("batch", "pos", "d_model") or site.component == "embed":
            raise InputError(f"a probe reads the residual stream at a layer; {site} is not that")
        if len(probe.coef) != model.d_model:
            raise InputError(
                f"the probe reads {len(probe.coef)} dimensions; {site} of {model.name} has {model.d_model}"
            )
        return cls(probe, site)


class Ran(NamedTuple):
    """One run of one example.

    Attributes:
        logits: ``[d_vocab]``, of the last prompt position, float32 on the CPU.
        probed: the probe's probability that the answer is right; None without a probe.
        answer: the whole greedy answer; None where it cannot be had (``Runs.no_answers``).
    """

    logits: Tensor
    probed: float | None
    answer: str | None


class CleanRun(NamedTuple):
    """An example, encoded by itself and run clean; ``right`` is the token that the right answer begins with."""

    batch: Batch
    ran: Ran
    right: int | None


class Runs:
    """Runs of an explorer's examples. What does not change is kept, the last used first.

    Args:
        model: from ``mechvrp.load``.
        examples: of the explorer.
        probing: what is read in each run.
        reference: the first so many examples are what means are taken over.

    Attributes:
        no_answers: why answers behind their first token cannot be had; empty where they can.
    """

    def __init__(
        self, model: VLM, examples: Examples, probing: Probing | None, reference: int
    ) -> None:
        self.model = model
        self.examples = examples
        self.probing = probing
        self.reference = min(whole("reference", reference, 1), len(examples))
        self.no_answers = ""
        try:
            check_plain_decoding(model)
        except UnavailableError as error:
            self.no_answers = str(error)
        self._cleans: OrderedDict[int, CleanRun] = OrderedDict()
        self._caches: OrderedDict[Any, Activations] = OrderedDict()
        self._batches: OrderedDict[tuple[int, ...], Batch] = OrderedDict()

    def run(self, batch: Batch, edits: Edits = ()) -> Ran:
        """Run one encoded example."""
        state = past = None
        decoding = not self.no_answers
        with Trace(self.model, batch, options={"logits_to_keep": 1, "use_cache": decoding}) as t:
            t.apply(edits)
            if self.probing is not None:
                state = t[self.probing.site][0, -1].save()
            logits = t.logits[:, -1].save()
            if decoding:
                past = self.model.envoy.output.past_key_values.save()
        probed = answer = None
        if self.probing is not None and state is not None:
            row = state.float().cpu().numpy()[None].astype(np.float64)
            probed = float(self.probing.probe.probabilities(row)[0])
        if decoding and not bool(logits.isnan().any()):  # NaN is told of with what was done
            most = self.examples.max_new_tokens
            (answer,) = decode_on(self.model, batch, logits, past, most)
        return Ran(logits[0].float().cpu(), probed, answer)

    def clean(self, index: int) -> CleanRun:
        """An example's clean run."""
        return _kept(self._cleans, index, lambda: self._clean(index), _KEPT)

    def _clean(self, index: int) -> CleanRun:
        sample = self.examples[index]
        batch = self.model.encode(sample)
        ran = self.run(batch)
        right = None
        if sample.answer.strip():
            with suppress(UnavailableError):  # no token begins this answer: none is marked as right
                right = first_token(self.model, sample, ran.logits)
        return CleanRun(batch, ran, right)

    def encoded(self, indices: Sequence[int]) -> Batch:
        """Some examples as one batch."""
        chunk = tuple(indices)
        make = lambda: self.model.encode([self.examples.dataset[i] for i in chunk])  # noqa: E731
        return _kept(self._batches, chunk, make, _CACHES)

    def means_over(
        self, sites: str | Site | Sequence[str | Site], positions: Any, job: Job | None = None
    ) -> Activations:
        """Values of the reference examples, to take means over.

        Args:
            sites: as ``mechvrp.cache``.
            positions: names, as ``mechvrp.cache``.
            job: told of progress, and asked whether to go on.

        Raises:
            InputError: they would take more than 4 GB.
        """
        listed = [sites] if isinstance(sites, (str, Site)) else list(sites)
        wanted = expand_sites(self.model, listed)
        self._check_memory(wanted, positions)
        key = ("means", tuple(wanted), repr(positions))
        return _kept(
            self._caches,
            key,
            lambda: cache(
                self.model, self._counted(job or Job()), list(wanted), positions=positions
            ),
            _CACHES,
        )

    def _counted(self, job: Job) -> Iterator[Sample]:
        for done in range(self.reference):
            job.step("reading the reference", done, self.reference)
            yield self.examples[done]

    def _check_memory(self, sites: Sequence[Site], positions: Any) -> None:
        tokens = len(self.encoded((0,)).tokens.resolve(positions)[0])
        model = self.model
        widths = {"z": model.n_heads * model.d_head, "neurons": model.d_mlp}
        width = sum(widths.get(site.component, model.d_model) for site in sites)
        needed = self.reference * tokens * width * model.dtype.itemsize
        if needed > _MEMORY:
            raise InputError(
                f"means over {self.reference} reference examples need their values at {len(sites)} sites and "
                f"about {tokens} tokens each, {needed / 1e9:.1f} GB; 4 GB is the most. Give fewer examples "
                "(reference=8, say), or look at fewer positions"
            )

    def donor(self, donor: int, site: str | Site, positions: Any) -> Activations:
        """Values of another example."""
        return _kept(
            self._caches,
            ("donor", donor, str(site), repr(positions)),
            lambda: cache(self.model, [self.examples[donor]], site, positions=positions),
            _CACHES,
        )


def _kept(held: OrderedDict[Any, Any], key: Any, make: Callable[[], Any], most: int) -> Any:
    """What was made before, or is made now; only so many are kept, the last used ones."""
    if key not in held:
        held[key] = make()
        while len(held) > most:
            held.popitem(last=False)
    held.move_to_end(key)
    return held[key]
