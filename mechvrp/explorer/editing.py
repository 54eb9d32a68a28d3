"""What is done to a place, to a circuit, or to each cell of a map; with the Python that does it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from mechvrp.errors import InputError
from mechvrp.explorer.places import Place, literal
from mechvrp.patching import mean, resample, zero
from mechvrp.tracing import Site

if TYPE_CHECKING:
    from mechvrp.explorer.drafting import Draft
    from mechvrp.explorer.jobs import Job
    from mechvrp.explorer.maps import MapPlan
    from mechvrp.explorer.running import Runs
    from mechvrp.models import Batch
    from mechvrp.models.tokens import Positions
    from mechvrp.patching.interventions import Edits
    from mechvrp.patching.references import Mean

__all__ = ["Done", "Method", "circuit_edit", "map_edits", "place_edit"]

#: What stands in the place of what is taken away.
Method = Literal["zero", "mean"]


class Done(NamedTuple):
    """An intervention.

    Attributes:
        what: in words.
        edits: for a trace.
        setup: Python lines that prepare it.
        made: the Python that makes it.
    """

    what: str
    edits: Edits
    setup: str
    made: str


def check_method(method: str) -> None:
    if method not in ("zero", "mean"):
        raise InputError(f"method is 'zero' or 'mean'; got {method!r}")


def place_edit(runs: Runs, place: Place, method: Method, job: Job | None = None) -> Done:
    """Take a place away.

    A mean is taken over the reference examples: at named positions over all of these together; at a token
    or patches, at the same one.

    Raises:
        InputError: no such method, or more values than fit.
    """
    check_method(method)
    site, chosen = literal(str(place.site)), place.arguments()
    what = f"{place}: {method}"
    if method == "zero":
        return Done(what, zero(place.site, **place.selected), "", f"mechvrp.zero({site}, {chosen})")
    at, pooled = _mean_of(place.positions)
    edits = mean(place.site, runs.means_over(place.site, at, job), pooled=pooled, **place.selected)
    return Done(
        what,
        edits,
        f"over = {_reference(runs, site, at)}",
        f"mechvrp.mean({site}, over{'' if pooled else ', pooled=False'}, {chosen})",
    )


def place_patch(runs: Runs, place: Place, donor: int) -> Done:
    """Give a place another example's values."""
    site = literal(str(place.site))
    over = runs.donor(donor, place.site, place.positions)
    return Done(
        f"{place}: from example {donor}",
        resample(place.site, over, **place.selected),
        f"over = mechvrp.cache(model, [dataset[{donor}]], {site}, positions={literal(place.positions)})",
        f"mechvrp.resample({site}, over, {place.arguments()})",
    )


def circuit_edit(
    runs: Runs,
    draft: Draft,
    batch: Batch,
    method: Method | Literal["patch"],
    donor: int | None = None,
    job: Job | None = None,
) -> Done:
    """Take a circuit's nodes away, or give them another example's values.

    Means are of image tokens, of last tokens and of other text, whichever a token is.

    Raises:
        InputError: no nodes, no such method, or prompts that are not aligned.
    """
    circuit = draft.circuit()
    name = f"the circuit{f' {draft.name!r}' if draft.name else ''} of {len(draft)} nodes"
    if method == "patch":
        assert donor is not None
        edits = circuit.edits(
            runs.model, batch, "counterfactual", reference=runs.clean(donor).batch, ablate="circuit"
        )
        what = f"{name} patched from example {donor}"
        more = f'"counterfactual", reference=model.encode(dataset[{donor}])'
    else:
        check_method(method)
        what = f"{name}: {method}"
        if method == "zero":
            edits = circuit.edits(runs.model, batch, "zero", ablate="circuit")
            more = '"zero"'
        else:
            sites = sorted({node.site for node in circuit.nodes}, key=lambda site: site.order)
            over = runs.means_over(sites, "all", job)
            edits = circuit.edits(
                runs.model, batch, "mean", reference=over, ablate="circuit", pooled=True
            )
            more = f'"mean", reference=dataset[:{runs.reference}], pooled=True'
    return Done(what, edits, draft.code(), f'circuit.edits(model, batch, {more}, ablate="circuit")')


def map_edits(
    runs: Runs,
    plan: MapPlan,
    method: Method | Literal["patch"],
    donor: int | None = None,
    job: Job | None = None,
) -> tuple[list[Edits], list[str]]:
    """An intervention for each cell, row by row, and the Python that makes the list ``variants``.

    Raises:
        InputError: no such method, or more values than fit.
    """
    component = plan.component
    layer = ", layer=layer" if plan.layered else ""
    loop = ("for layer in layers " if plan.layered else "") + "for at in columns]"
    cells = [(at, keywords) for at in plan.layers for keywords in plan.keywords]

    def code(name: str, over: str = "", more: str = "") -> str:
        made = f"mechvrp.{name}({literal(component)}{over}{layer}, {plan.argument}{more})"
        return f"variants = [{made} {loop}"

    if method == "zero":
        return [zero(component, layer=at, **kw) for at, kw in cells], [code("zero")]
    if method == "patch":
        assert donor is not None
        held = runs.donor(donor, component, "all")
        setup = f'over = mechvrp.cache(model, [dataset[{donor}]], {literal(component)}, positions="all")'
        edits = [resample(component, held, layer=at, **kw) for at, kw in cells]
        return edits, [setup, code("resample", ", over")]
    check_method(method)
    sites = [Site(component, at) for at in plan.layers]
    first: dict[Any, Mean] = {}
    found: list[Edits] = []
    for at, keywords in cells:
        where, pooled = _mean_of(keywords["positions"])
        made = cast(
            "Mean",
            mean(
                component, runs.means_over(sites, where, job), pooled=pooled, layer=at, **keywords
            ),
        )
        # Those of one site and one set of positions share their means.
        made = replace(made, _means=first.setdefault((at, where), made)._means)
        found.append(made)
    listed = literal(component if len(sites) > 1 or not plan.layered else str(sites[0]))
    if plan.cells == "tokens":
        return found, [
            f"text = {_reference(runs, listed, 'text')}",
            f"image = {_reference(runs, listed, 'image')}",
            code("mean", ', image if at == "image" else text', ', pooled=at == "image"'),
        ]
    where, pooled = _mean_of(plan.keywords[0]["positions"])
    return found, [
        f"over = {_reference(runs, listed, where)}",
        code("mean", ", over", "" if pooled else ", pooled=False"),
    ]


def _mean_of(positions: Positions) -> tuple[Positions, bool]:
    """Which positions of the reference a mean is over, and whether it is one over all of them."""
    if isinstance(positions, str):
        return positions, True
    return ("text" if isinstance(positions, int) else "image"), False


def _reference(runs: Runs, site: str, positions: Positions) -> str:
    return (
        f"mechvrp.cache(model, dataset[:{runs.reference}], {site}, positions={literal(positions)})"
    )
