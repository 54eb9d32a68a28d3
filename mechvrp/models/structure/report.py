"""``check_family``: what of a model mechvrp can name, how that was verified, and what to do for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mechvrp.errors import InputError, UnavailableError
from mechvrp.models.families.base import Modules
from mechvrp.models.structure.facts import Facts
from mechvrp.models.structure.family import QUESTIONS, probe_images, structural

if TYPE_CHECKING:
    from mechvrp.models.vlm import VLM

__all__ = ["FamilyReport", "ReportRow", "check_family", "report_of"]

#: The components in the order of computation, as ``mechvrp.tracing`` has them.
COMPONENTS = (
    "embed", "vision_resid_post", "projected", "resid_pre", "q", "k", "v", "pattern", "z", "attn_out",
    "resid_mid", "neurons", "mlp_out", "resid_post", "logits",
)  # fmt: skip
#: Of blocks that attend to the image's own keys, where there are any.
_CROSSED = ("image_k", "image_v")
_IN_BLOCK = (*COMPONENTS[3:-1], *_CROSSED)

#: What to edit in place of a block's part that is not there: the first of these that the block has.
_INSTEAD = {
    "q": ("z", "attn_out", "resid_mid"),
    "k": ("z", "attn_out", "resid_mid"),
    "v": ("z", "attn_out", "resid_mid"),
    "pattern": ("z", "attn_out", "resid_mid"),
    "z": ("attn_out", "resid_mid"),
    "attn_out": ("resid_mid",),
    "resid_mid": ("attn_out",),
    "neurons": ("mlp_out",),
    "mlp_out": (),
}
#: What to do where something else is not there.
_REMEDIES = {
    "embed": "edit resid_pre of block 0",
    "projected": "edit resid_pre of block 0 at positions='image'",
    "vision_resid_post": "read the tower through model.envoy; edit image tokens at resid_pre of block 0",
    "resid_post": "describe the model by a family of its own",
    "final_norm": "read logits; a lens of your own can be made of model.envoy (nnsight)",
    "logits": "read what the model returns through model.envoy (nnsight)",
    "image": "use explicit positions",
    "padding": "encode prompts of one length, or one at a time (batch_size=1)",
    "grid": "use positions='image', or describe the model by a family of its own (grids)",
}
#: The same where no position of the prompt stands for the image.
_WITHOUT_IMAGE = {
    "projected": "read and edit it through model.envoy (nnsight)",
    "vision_resid_post": "read and edit the tower through model.envoy (nnsight)",
    "image": "edit the blocks' residual stream; what they read of the image is at model.envoy (nnsight)",
}


@dataclass(frozen=True)
class ReportRow:
    """One thing that is asked of a model.

    Attributes:
        what: a component, or ``image``, ``grid``, ``attention``, ``padding``, ``final_norm``.
        available: whether it can be used.
        why: how it was verified, or why it cannot be used.
        layers: the blocks that lack it where others have it.
        remedy: what to do instead.
    """

    what: str
    available: bool
    why: str
    layers: tuple[int, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class FamilyReport:
    """What holds of a model; print it.

    Attributes:
        model: its class.
        family: by which it is used.
        described: whether that family is written by hand; then the rows say what its structure shows.
        rows: what was asked, in the order of computation.
        differences: where a family written by hand and the structure disagree.
    """

    model: str
    family: str
    described: bool
    rows: tuple[ReportRow, ...]
    differences: tuple[str, ...] = ()

    def __getitem__(self, what: str) -> ReportRow:
        for row in self.rows:
            if row.what == what:
                return row
        raise InputError(f"no row {what!r}; there are {', '.join(row.what for row in self.rows)}")

    @property
    def missing(self) -> tuple[str, ...]:
        """What cannot be used, in whole or in some blocks."""
        return tuple(row.what for row in self.rows if not row.available or row.layers)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def __str__(self) -> str:
        by = "a family written by hand" if self.described else "found by structure"
        lines = [f"{self.model}: {self.family} ({by})"]
        for row in self.rows:
            mark = "yes" if row.available else "no"
            if row.available and row.layers:
                mark = f"not in blocks {', '.join(map(str, row.layers))}"
            lines.append(f"  {row.what:<18} {mark:<4} {row.why}")
            if row.remedy:
                lines.append(f"  {'':<18} {'':<4} do: {row.remedy}")
        lines += [f"  differs: {difference}" for difference in self.differences]
        return "\n".join(lines)


def report_of(facts: Facts, family: str, *, described: bool = False) -> FamilyReport:
    """The rows of what was measured."""
    names = list(COMPONENTS)
    if facts.image_token is None and None not in facts.reasons.get("image_k", {None: ""}):
        names[names.index("z") : names.index("z")] = _CROSSED
    rows = [_component(facts, name) for name in names]
    rows.append(_row("final_norm", facts, facts.unavailable("final_norm")))
    rows.append(_row("image", facts, facts.notes.get("image", "")))
    if "image" not in facts.notes:
        rows.append(_row("grid", facts, facts.notes.get("grid", "")))
    how = f"{facts.attention}: {facts.how.get('attention', '')}"
    rows.append(ReportRow("attention", True, how))
    rows.append(_row("padding", facts, facts.notes.get("padding", "")))
    if why := facts.notes.get("positions", ""):
        rows.append(ReportRow("positions", False, why, remedy="sweeps run whole sequences"))
    resumed = "skipping the first half of the blocks with what they gave changes no logit"
    if not facts.forgets_image:
        resumed += ", if the pixels are given again"
    rows.append(
        ReportRow(
            "resume",
            facts.resumes,
            resumed if facts.resumes else facts.notes.get("resume", "logits differ"),
            remedy="" if facts.resumes else "sweeps run whole forwards",
        )
    )
    return FamilyReport(facts.kind, family, described, tuple(rows))


def _component(facts: Facts, name: str) -> ReportRow:
    depth = facts.n_layers
    lacking = tuple(i for i in range(depth) if facts.unavailable(name, i))
    if facts.unavailable(name) or (name in _IN_BLOCK and len(lacking) == depth):
        return _row(name, facts, facts.unavailable(name, 0))
    if name in _IN_BLOCK and lacking:
        why = facts.unavailable(name, lacking[0])
        return ReportRow(name, True, why, lacking, _remedy(facts, name, lacking[0]))
    return _row(name, facts, "")


def _row(name: str, facts: Facts, why: str) -> ReportRow:
    if why:
        return ReportRow(name, False, why, remedy=_remedy(facts, name, 0))
    return ReportRow(name, True, facts.how.get(name, "") or "measured")


def _remedy(facts: Facts, name: str, layer: int) -> str:
    if name == "image" and facts.crossed:
        layers = ", ".join(map(str, facts.crossed))
        return f"edit image_k and image_v of block {layers}: the keys and values of the image"
    if name not in _INSTEAD:
        texts = _REMEDIES | (_WITHOUT_IMAGE if facts.image_token is None else {})
        return texts.get(name, "")
    fitting = [site for site in _INSTEAD[name] if not facts.unavailable(site, layer)]
    text = f"edit {(*fitting, 'resid_post')[0]}"
    if name == "pattern":
        text += "; if the model was loaded without, attn='eager' or 'sdpa' may give it"
    return text


def _encoded(model: VLM) -> dict[str, Tensor]:
    """Two synthetic samples, as the model's own family writes and encodes them."""
    from mechvrp.data.sample import Sample

    samples = [
        Sample(image, question, "", str(index), "vqa")
        for index, (image, question) in enumerate(zip(probe_images(), QUESTIONS, strict=True))
    ]
    inputs = dict(model.encode(samples).inputs)
    inputs.pop("position_ids", None)
    return inputs


def check_family(model: VLM, *, probe: Mapping[str, Tensor] | None = None) -> FamilyReport:
    """What of a model can be read and edited, each verified by runs, and what to do for the rest.

    For a model that no family describes these are the facts mechvrp goes by. For one with a family
    written by hand its structure is measured anew and compared with what the family says.

    Args:
        model: from ``mechvrp.load``.
        probe: encoded inputs of two samples or more, as in ``mechvrp.load``; by default the processor
            makes them.

    Raises:
        UnavailableError: a model with a family written by hand has neither a processor nor a probe.
        InputError: the model does not run on the probe.
    """
    if not hasattr(model, "family"):
        raise InputError(f"expected a model from mechvrp.load(...); got {model!r:.60}")
    family: Any = model.family
    if family.measured and probe is None:
        return report_of(family.facts, family.name)
    if probe is None and model.processor is None:
        raise UnavailableError(
            f"{model.name} was loaded without a processor, so there is nothing to run it on: give inputs of "
            "two samples, check_family(model, probe=inputs)"
        )
    model.check_weights()
    if probe is None:
        probe = _encoded(model)
    facts = structural(model.model, model.envoy, probe=dict(probe)).facts
    found = report_of(facts, family.name, described=not family.measured)
    differences = []
    if not family.measured:
        for name in (
            *Modules.GLOBAL,
            "attn",
            "q",
            "k",
            "v",
            "o",
            "neurons",
            "attn_write",
            "mlp_write",
        ):
            said = getattr(model.modules, name)
            seen = "" if name in facts.modules.absent else getattr(facts.modules, name)
            if said != seen:
                differences.append(f"{name}: the family says {said!r}, its structure {seen!r}")
        if family.attention != facts.attention:
            differences.append(
                f"attention: the family says {family.attention!r}, the runs {facts.attention!r}"
            )
    return FamilyReport(found.model, found.family, found.described, found.rows, tuple(differences))
