"""What is shown, as JSON: numbers, words and image data, nothing of the model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.errors import DataError, MechVRPError
from mechvrp.explorer.maps import EffectMap
from mechvrp.explorer.outcomes import Outcome
from mechvrp.explorer.pictures import data_url
from mechvrp.explorer.places import EXPLORED

if TYPE_CHECKING:
    from mechvrp.explorer.session import CurveView, Explorer

__all__ = [
    "circuit_of",
    "curve_of",
    "example_of",
    "gallery_of",
    "heat_of",
    "outcome_of",
    "place_of",
]

#: Examples a page, pixels of a thumbnail and of the image, units that are shown of a layer's.
PAGE = 24
_THUMB = 96
_LONGEST = 640
_UNITS = 60


def setup_of(session: Explorer) -> dict[str, Any]:
    """What never changes."""
    model = session.model
    return {
        "model": model.name,
        "family": model.family.name,
        "layers": model.n_layers,
        "heads": model.n_heads,
        "components": [{"name": name, "words": words} for name, words in EXPLORED.items()],
        "tasks": list(session.examples.tasks),
        "total": len(session.examples),
        "reference": session.reference,
        "rankings": [
            {"name": name, "units": len(one.scores)} for name, one in session.rankings.items()
        ],
    }


def gallery_of(
    session: Explorer, chosen: tuple[int, ...], page: int, asked: dict[str, Any], code: str
) -> dict[str, Any]:
    """One page of thumbnails."""
    pages = max(1, math.ceil(len(chosen) / PAGE))
    page = min(max(page, 0), pages - 1)
    items = []
    for i in chosen[page * PAGE : (page + 1) * PAGE]:
        sample = session.examples[i]
        try:
            thumb, problem = data_url(sample, _THUMB), ""
        except DataError as error:
            thumb, problem = "", str(error)
        items.append(
            {
                "index": i,
                "thumb": thumb,
                "problem": problem,
                "question": sample.question,
                "task": sample.task,
                "right": session.examples.right(i),
            }
        )
    return {
        "items": items,
        "page": page,
        "pages": pages,
        "found": len(chosen),
        "asked": asked,
        "code": code,
    }


def example_of(session: Explorer) -> dict[str, Any]:
    """The chosen example, answered."""
    sample, tokens = session.sample, session.batch.tokens
    session.examples.answer([session.index])
    answer = session.examples.answers[session.index]
    found = session.reliability()
    grid, words = session.grid, tokens.strings(0)
    length = tokens.length
    text = tokens.resolve("text")[0].tolist()
    return {
        "index": session.index,
        "image": data_url(sample, _LONGEST),
        "size": list(sample.image.size),
        "question": sample.question,
        "right_answer": sample.answer,
        "task": sample.task,
        "image_id": sample.image_id,
        "answer": answer.text,
        "answer_tokens": len(answer.tokens),
        "answer_probability": answer.probability,
        "right": session.examples.right(session.index),
        "reliability": None if found is None else found.reliability,
        "abstain": None if found is None else found.abstain,
        "grid": None if grid is None else list(grid),
        "box": list(session.seen_box),
        "tokens": [{"at": p - length, "text": words[p]} for p in text],
    }


def place_of(session: Explorer) -> dict[str, Any]:
    """The chosen place, and whether it can be added to a circuit."""
    place = session.place
    try:
        nodes, why = len(place.nodes()), ""
    except MechVRPError as error:
        nodes, why = 0, str(error)
    at: Any = place.positions
    return {
        "component": place.component,
        "layer": place.layer,
        "positions": at if isinstance(at, (str, int)) else [list(pair) for pair in at],
        "units": None if place.units is None else list(place.units),
        "heads": None if place.heads is None else list(place.heads),
        "words": str(place),
        "nodes": nodes,
        "why_no_nodes": why,
    }


def outcome_of(outcome: Outcome) -> dict[str, Any]:
    """Probabilities before and after."""
    return {
        "kind": outcome.kind,
        "example": outcome.example,
        "what": outcome.what,
        "words": [
            {
                "text": word.text,
                "before": word.before,
                "after": word.after,
                "right": word.right,
            }
            for word in outcome.words
        ],
        "first": outcome.first.text,
        "first_after": outcome.first_after.text,
        "changed": outcome.changed,
        "margin_before": outcome.margin_before,
        "margin_after": outcome.margin_after,
        "answer_before": outcome.answer_before,
        "answer_after": outcome.answer_after,
        "no_answers": outcome.no_answers,
        "reliability_before": outcome.reliability_before,
        "reliability_after": outcome.reliability_after,
        "code": outcome.code,
    }


def heat_of(found: EffectMap) -> dict[str, Any]:
    """Effects by cell; of many units those of largest effect."""
    plan = found.plan
    columns = list(range(len(plan.columns)))
    if plan.cells == "units" and len(columns) > _UNITS:
        size = np.nan_to_num(np.abs(found.margin[0]), nan=-1.0)
        columns = np.argsort(-size, kind="stable")[:_UNITS].tolist()
    return {
        "cells": plan.cells,
        "component": plan.component,
        "layers": list(plan.layers),
        "columns": [{"label": plan.columns[i], **_plain(plan.keywords[i])} for i in columns],
        "of": len(plan.columns),
        "grid": None if plan.grid is None else list(plan.grid),
        "probability": _numbers(found.probability[:, columns]),
        "margin": _numbers(found.margin[:, columns]),
        "gaps": [[row[i] for i in columns] for row in found.gaps],
        "base_probability": found.base_probability,
        "base_margin": found.base_margin,
        "method": found.method,
        "example": found.example,
        "code": found.code,
    }


def circuit_of(session: Explorer) -> dict[str, Any]:
    """Nodes in the order in which they were added."""
    draft = session.circuit
    return {
        "name": draft.name,
        "nodes": [str(node) for node in draft.nodes],
        "code": draft.code() if len(draft) else "",
    }


def curve_of(view: CurveView, done: bool) -> dict[str, Any]:
    """Accuracy against nodes taken away, beside random ones; shares, 0 to 1."""
    curve = view.curve
    clean = curve.clean_accuracy
    return {
        "points": [
            {
                "k": p.k,
                "accuracy": p.accuracy.value,
                "low": p.accuracy.low,
                "high": p.accuracy.high,
                "random": clean.value + p.random_change.value / 100,
                "random_low": max(0.0, clean.value + p.random_change.low / 100),
                "random_high": min(1.0, clean.value + p.random_change.high / 100),
                "excess": p.excess.value,
                "excess_low": p.excess.low,
                "excess_high": p.excess.high,
            }
            for p in curve.points
        ],
        "n": clean.n,
        "images": clean.n_groups,
        "level": clean.level,
        "draws": curve.draws,
        "of": len(view.indices),
        "method": view.method,
        "done": done,
        "code": view.code,
    }


def _numbers(values: np.ndarray) -> list[list[float | None]]:
    return [[float(v) if math.isfinite(v) else None for v in row] for row in values.tolist()]


def _plain(keywords: dict[str, Any]) -> dict[str, Any]:
    found = dict(keywords)
    if isinstance(found.get("positions"), list):
        found["positions"] = [list(pair) for pair in found["positions"]]
    return found
