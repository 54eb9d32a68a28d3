"""Sites: the places in the computation that can be read and edited, and their names.

The string form is TransformerLens's hook name. All shapes are those of the table below, for every
family:

=================  ============================================  ============================
component          hook name                                     shape
=================  ============================================  ============================
embed              hook_embed                                    [batch, pos, d_model]
vision_resid_post  vision_encoder.encoder_layers.L.hook_resid_post  as the tower has it
projected          vision_projector.hook_out                     [image token, d_model]
resid_pre          blocks.L.hook_resid_pre                       [batch, pos, d_model]
q, k, v            blocks.L.attn.hook_q (k, v)                   [batch, pos, head, d_head]
pattern            blocks.L.attn.hook_pattern                    [batch, head, query, key]
z                  blocks.L.attn.hook_z                          [batch, pos, head, d_head]
attn_out           blocks.L.hook_attn_out                        [batch, pos, d_model]
resid_mid          blocks.L.hook_resid_mid                       [batch, pos, d_model]
neurons            blocks.L.mlp.hook_post                        [batch, pos, d_mlp]
mlp_out            blocks.L.hook_mlp_out                         [batch, pos, d_model]
resid_post         blocks.L.hook_resid_post                      [batch, pos, d_model]
logits             unembed.hook_out                              [batch, pos, d_vocab]
image_k, image_v   blocks.L.cross_attn.hook_k (v)                [batch, image key, head, d_head]
=================  ============================================  ============================

``embed`` is the token embedding, before image features are written over the placeholders (then it is
``resid_pre`` of block 0). ``projected`` lists the image tokens of the whole batch in order
(``batch.tokens.images[i].feature`` says which rows are whose). ``q`` and ``k`` are before rotary
embedding; ``logits`` after a soft cap where there is one. ``vision_resid_post`` is [image, token, d]
in CLIP and SigLIP towers and [patch, d] in Qwen's, whose 2.5 version orders patches by window.

``image_k`` and ``image_v`` are of models whose image is not in the sequence (Mllama): in blocks of cross
attention, the keys and values that the prompt attends to, before their norm; a sample's tiles one after the
other, as the tower has them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechvrp.errors import SiteError
from mechvrp.models.tokens import integers

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["ALL_COMPONENTS", "COMPONENTS", "IMAGE_KEYS", "Component", "Site", "expand_sites"]


@dataclass(frozen=True)
class Component:
    """A kind of site. ``dims`` names its axes; ``where`` and ``step`` say when it is computed."""

    name: str
    hook: str
    dims: tuple[str, ...]
    where: str  # "embed", "vision", "projector", "block" or "end", in order of execution
    step: int = 0

    @property
    def layered(self) -> bool:
        return "{layer}" in self.hook

    @property
    def by_head(self) -> bool:
        return "head" in self.dims


RESID = ("batch", "pos", "d_model")
HEADS = ("batch", "pos", "head", "d_head")
KEYS = ("batch", "image_key", "head", "d_head")
STAGES = ("embed", "vision", "projector", "block", "end")

COMPONENTS: dict[str, Component] = {
    c.name: c
    for c in (
        Component("embed", "hook_embed", RESID, "embed"),
        Component(
            "vision_resid_post",
            "vision_encoder.encoder_layers.{layer}.hook_resid_post",
            ("image", "patch", "d_vision"),
            "vision",
        ),
        Component("projected", "vision_projector.hook_out", ("feature", "d_model"), "projector"),
        Component("resid_pre", "blocks.{layer}.hook_resid_pre", RESID, "block", 0),
        Component("q", "blocks.{layer}.attn.hook_q", HEADS, "block", 1),
        Component("k", "blocks.{layer}.attn.hook_k", HEADS, "block", 2),
        Component("v", "blocks.{layer}.attn.hook_v", HEADS, "block", 3),
        Component(
            "pattern",
            "blocks.{layer}.attn.hook_pattern",
            ("batch", "head", "query", "key"),
            "block",
            4,
        ),
        Component("z", "blocks.{layer}.attn.hook_z", HEADS, "block", 5),
        Component("attn_out", "blocks.{layer}.hook_attn_out", RESID, "block", 6),
        Component("resid_mid", "blocks.{layer}.hook_resid_mid", RESID, "block", 7),
        Component("neurons", "blocks.{layer}.mlp.hook_post", ("batch", "pos", "d_mlp"), "block", 8),
        Component("mlp_out", "blocks.{layer}.hook_mlp_out", RESID, "block", 9),
        Component("resid_post", "blocks.{layer}.hook_resid_post", RESID, "block", 10),
        Component("logits", "unembed.hook_out", ("batch", "pos", "d_vocab"), "end"),
    )
}

#: What only blocks of cross attention have, in place of image positions of the prompt.
IMAGE_KEYS: dict[str, Component] = {
    c.name: c
    for c in (
        Component("image_k", "blocks.{layer}.cross_attn.hook_k", KEYS, "block", 2),
        Component("image_v", "blocks.{layer}.cross_attn.hook_v", KEYS, "block", 3),
    )
}
ALL_COMPONENTS = {**COMPONENTS, **IMAGE_KEYS}

_PATTERNS = [
    (re.compile(re.escape(c.hook).replace(re.escape("{layer}"), r"(-?\d{1,18})")), c)
    for c in ALL_COMPONENTS.values()
]


@dataclass(frozen=True, order=False)
class Site:
    """One place: a component and, where it is layered, a layer (negative counts from the last)."""

    component: str
    layer: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.component, str) or self.component not in ALL_COMPONENTS:
            raise SiteError(_unknown(self.component))
        if self.layer is not None:
            (number,) = integers("a layer", self.layer)
            object.__setattr__(self, "layer", number)
        if self.kind.layered and self.layer is None:
            raise SiteError(
                f"{self.component} needs a layer, e.g. {self.kind.hook.format(layer=0)!r}"
            )
        if not self.kind.layered and self.layer is not None:
            raise SiteError(f"{self.component} has no layers; got layer {self.layer}")

    @classmethod
    def parse(cls, name: str | Site, layer: int | None = None) -> Site:
        """A site from a hook name (``"blocks.3.hook_resid_post"``), or a component and a layer.

        Raises:
            SiteError: no such name, with the closest ones.
        """
        if isinstance(name, Site):
            if layer is not None:
                raise SiteError(f"{name!r} is a whole site; got layer {layer} besides")
            return name
        if not isinstance(name, str):
            raise SiteError(f"a site is named by a string or a Site; got {name!r}")
        if name in ALL_COMPONENTS:
            return cls(name, layer)
        for pattern, component in _PATTERNS:
            if match := pattern.fullmatch(name):
                if layer is not None:
                    already = "names its layer already" if component.layered else "has no layers"
                    raise SiteError(f"{name!r} {already}; got layer {layer} besides")
                return cls(component.name, int(match[1]) if component.layered else None)
        raise SiteError(_unknown(name))

    @property
    def kind(self) -> Component:
        return ALL_COMPONENTS[self.component]

    def __str__(self) -> str:
        return self.kind.hook.format(layer=self.layer)

    def check(self, model: VLM) -> Site:
        """The same site with its layer counted from 0 (raises ``SiteError`` if out of range)."""
        if self.layer is None:
            return self
        vision = self.kind.where == "vision"
        n = model.n_vision_layers if vision else model.n_layers
        if not -n <= self.layer < n:
            part = "vision layers" if vision else "layers"
            raise SiteError(
                f"{self} is out of range: {model.name} has {n} {part}, 0 to {n - 1} (or -{n} to -1)"
            )
        return Site(self.component, self.layer % n)

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts checked sites in the order in which the model computes them."""
        return STAGES.index(self.kind.where), self.layer or 0, self.kind.step


def expand_sites(model: VLM, sites: str | Site | list[str | Site]) -> list[Site]:
    """Sites by hook name, or all layers of a component (``"resid_post"``), in execution order."""
    if isinstance(sites, (str, Site)):
        sites = [sites]
    if not isinstance(sites, Iterable):
        raise SiteError(f"sites are named by strings; got {sites!r:.60}")
    found: set[Site] = set()
    for site in sites:
        if isinstance(site, str) and site in ALL_COMPONENTS and ALL_COMPONENTS[site].layered:
            vision = ALL_COMPONENTS[site].where == "vision"
            layers = model.n_vision_layers if vision else model.n_layers
            found.update(Site(site, layer) for layer in range(layers))
        else:
            found.add(Site.parse(site).check(model))
    if not found:
        raise SiteError("no sites were given")
    return sorted(found, key=lambda s: s.order)


def _unknown(name: object) -> str:
    name = str(name)
    if len(name) > 200:  # the closest of long names takes long to find
        return f"no site {name[:60]!r}... ({len(name)} characters)"
    hooks = [c.hook.format(layer="L") for c in ALL_COMPONENTS.values()]
    known = [*ALL_COMPONENTS, *hooks]
    close = difflib.get_close_matches(re.sub(r"\.-?\d+\.", ".L.", name), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"no site {name!r}.{hint} Known: {', '.join(hooks)}"
