"""What ``read_heads`` returns: heads by what they move from the image to the last position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from mechvrp.circuits.direct_logits import DirectLogits
from mechvrp.circuits.ranking import Ranking
from mechvrp.errors import InputError, UnavailableError
from mechvrp.statistics import group_means
from mechvrp.tracing.sites import Site

__all__ = ["HeadReading", "ReadingScore"]

#: What heads are ordered by.
ReadingScore = Literal["product", "carried", "attribution"]
_COLUMNS = (
    *("image_attention", "region_attention", "attribution"),
    *("carried_image", "carried_region", "product"),
)


@dataclass(frozen=True, eq=False)
class HeadReading:
    """Attention of the last position and direct logit attribution, head by head.

    Arrays are ``[example, layer, head]``; those of the region are NaN for examples without one.

    Attributes:
        model: its name.
        fingerprint: of its weights.
        over: what ``product`` and ``carried`` are of, ``"image"`` or ``"region"``.
        of: whose logit difference: ``"own"`` (the model's answer and its runner-up) or ``"right"`` (the right
            answer and the likeliest other).
        image_attention, region_attention: attention mass, 0 to 1.
        carried_image, carried_region: the part of a head's attribution that came through the values of
            image (region) positions.
        direct: attributions of heads and of everything else.
        images: ``[example]``, image ids.
        token, foil: ``[example]``, ids.
        seed, n_resamples: of the intervals.
    """

    model: str
    fingerprint: str
    over: Literal["image", "region"]
    of: Literal["own", "right"]
    image_attention: np.ndarray
    region_attention: np.ndarray
    carried_image: np.ndarray
    carried_region: np.ndarray
    direct: DirectLogits
    images: tuple[str, ...]
    token: np.ndarray
    foil: np.ndarray
    seed: int = 0
    n_resamples: int = 2000

    @property
    def attribution(self) -> np.ndarray:
        """Direct logit attribution of each head, ``[example, layer, head]``."""
        return np.asarray(self.direct.heads.numpy())

    @property
    def product(self) -> np.ndarray:
        """Attention to ``over`` times attribution, ``[example, layer, head]``."""
        masses = {"image": self.image_attention, "region": self.region_attention}
        return masses[self.over] * self.attribution

    @property
    def carried(self) -> np.ndarray:
        """``carried_image`` or ``carried_region``, by ``over``."""
        return {"image": self.carried_image, "region": self.carried_region}[self.over]

    @property
    def has_region(self) -> np.ndarray:
        """Boolean ``[example]``."""
        return np.asarray(np.isfinite(self.region_attention).all(axis=(1, 2)))

    def means(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
        """Mean of a score over the examples that have it, the ends of its interval, and n, n_groups.

        Args:
            name: of an array: ``"product"``, ``"attribution"``, ``"image_attention"``, ...

        Raises:
            InputError: no such score.
            UnavailableError: fewer than two images have it.
        """
        if name not in (*_COLUMNS, "carried"):
            raise InputError(f"no score {name!r}; there are {', '.join(_COLUMNS)}")
        values = np.asarray(getattr(self, name))
        kept = np.isfinite(values).all(axis=(1, 2))
        groups = np.asarray(self.images)[kept]
        if len(set(groups.tolist())) < 2:
            raise UnavailableError(
                f"{name} is known for {int(kept.sum())} of {len(kept)} samples, of "
                f"{len(set(groups.tolist()))} images: an interval over images needs two"
            )
        found = group_means(values[kept], groups, n_resamples=self.n_resamples, seed=self.seed)
        return found.mean, found.low, found.high, int(kept.sum()), len(set(groups.tolist()))

    def ranking(self, by: ReadingScore = "product") -> Ranking:
        """Heads by the mean of a score, above 0 where they speak for the answer; intervals over images.

        ``"product"`` is attention mass times attribution; ``"carried"`` the part of the attribution that
        came through those positions, exactly; ``"attribution"`` all of it.
        """
        mean, low, high, _, _ = self.means(by)
        sites = tuple(str(Site("z", layer)) for layer in range(mean.shape[0]))
        words = {
            "product": f"attention to the {self.over} times direct logit attribution",
            "carried": f"direct logit attribution through {self.over} positions",
            "attribution": "direct logit attribution",
        }
        return Ranking(
            sites,
            mean.ravel(),
            method=words[by],
            low=low.ravel(),
            high=high.ravel(),
            model=self.model,
            fingerprint=self.fingerprint,
            images=frozenset(self.images),
            settings={
                "of": self.of,
                "over": self.over,
                "interval": "95 % bootstrap over images",
                "seed": self.seed,
            },
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per head, highest absolute ``product`` first.

        Columns: rank, layer, head; image_attention, region_attention, attribution, carried_image,
        carried_region and product, each with ``_low`` and ``_high`` (NaN: too few images have it); n and
        n_groups, of ``product``.
        """
        shape = self.attribution.shape[1:]
        layers, heads = np.indices(shape)
        frame = pd.DataFrame({"layer": layers.ravel(), "head": heads.ravel()})
        for name in _COLUMNS:
            try:
                mean, low, high, n, n_groups = self.means(name)
            except UnavailableError:
                mean = low = high = np.full(shape, np.nan)
                n = n_groups = 0
            frame[name], frame[f"{name}_low"], frame[f"{name}_high"] = (
                part.ravel() for part in (mean, low, high)
            )
        frame["n"], frame["n_groups"] = n, n_groups
        order = np.argsort(-frame["product"].abs().to_numpy(), kind="stable")
        frame = frame.iloc[order].reset_index(drop=True)
        frame.insert(0, "rank", np.arange(len(frame)))
        return frame

    def parts(self) -> pd.DataFrame:
        """The logit difference in parts, which sum to the last row.

        One row per part (embedding, each layer's heads together, its projection's bias, its MLP, the
        unembedding's bias, and all): part, layer, value, low, high, n, n_groups.
        """
        direct = self.direct
        rows: list[tuple[str, int | None, np.ndarray]] = [
            ("embedding", None, direct.embedding.numpy())
        ]
        for layer in range(direct.mlps.shape[1]):
            rows.append(("heads", layer, direct.heads[:, layer].sum(-1).numpy()))
            rows.append(("attention bias", layer, direct.attention_bias[:, layer].numpy()))
            rows.append(("MLP", layer, direct.mlps[:, layer].numpy()))
        rows.append(("unembedding bias", None, direct.unembedding_bias.numpy()))
        rows.append(("logit difference", None, direct.difference.numpy()))
        found = group_means(
            np.stack([row[2] for row in rows], axis=-1),
            np.asarray(self.images),
            n_resamples=self.n_resamples,
            seed=self.seed,
        )
        frame = pd.DataFrame({"part": [row[0] for row in rows], "layer": [row[1] for row in rows]})
        frame["value"], frame["low"], frame["high"] = found
        frame["n"], frame["n_groups"] = len(self.images), len(set(self.images))
        return frame.astype({"layer": "Int64"})

    def plot(self) -> Any:
        """Heads' scores by layer as a plotly figure (`mechvrp.plots.head_scores`)."""
        from mechvrp.plots import head_scores

        return head_scores(self)

    def __repr__(self) -> str:
        n, layers, heads = self.attribution.shape
        return f"HeadReading({self.model!r}: {layers} x {heads} heads, {n} samples, over the {self.over})"
