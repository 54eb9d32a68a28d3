"""Sites, layers and positions, wherever they are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import mechvrp
from mechvrp.errors import InputError, SiteError
from mechvrp.models import Each, box_region, cell_region
from mechvrp.tracing import Site
from tests.bad_input.rows import Bad, Place, bad

__all__ = ["ROWS"]


def cached(site: Any, **options: Any) -> Any:
    return lambda place: mechvrp.cache(place.model, place.batch, site, **options)


def resolved(positions: Any) -> Any:
    return lambda place: place.batch.tokens.resolve(positions)


def tokens(ask: Any) -> Any:
    return lambda place: ask(place.batch.tokens)


def traced(site: Any) -> Any:
    def run(place: Place) -> Any:
        with mechvrp.trace(place.model, place.batch) as t:
            t[site].save()

    return run


ROWS: list[Bad] = [
    *(
        bad(f"a cache at {site!r:.30}", cached(site), says, SiteError)
        for site, says in (
            (None, "sites are named by strings; got None"), (3, "sites are named by strings; got 3"), ([], "no sites were given"),
            ("", "no site ''"), ("resid_pst", "Did you mean resid_post"), ("blocks.1.mlp.hook_pst", "Did you mean blocks.L.mlp.hook_post"),
            ("blocks.99.mlp.hook_post", "is out of range"), ("blocks.-9.mlp.hook_post", "is out of range"),
            ("blocks." + "9" * 5000 + ".mlp.hook_post", "no site"), ("a" * 10**6, "(1000000 characters)"),
            ("blocks.1.mlp.hook_post ", "no site"), ("BLOCKS.1.MLP.HOOK_POST", "no site"), ([3], "a site is named by a string"),
        )
    ),
    bad("a site of a list", lambda p: Site([]), "no site '[]'", SiteError),
    bad("a layer that is half", lambda p: Site("resid_post", 1.5), "a layer must be whole numbers", SiteError),
    bad("a layer that is True", lambda p: Site("resid_post", True), "a layer must be whole numbers", SiteError),
    bad("no layer", lambda p: Site("resid_post"), "resid_post needs a layer", SiteError),
    bad("a layer of the logits", lambda p: Site("logits", 1), "logits has no layers", SiteError),
    bad("two layers of one site", lambda p: Site.parse("blocks.1.mlp.hook_post", 2), "names its layer already", SiteError),
    bad("a layer beyond the last in a trace", traced("blocks.99.hook_resid_post"), "is out of range", SiteError),
    *(
        bad(f"positions {positions!r:.30}", resolved(positions), says, SiteError)
        for positions, says in (
            (None, "positions must be whole numbers"), (3.5, "positions must be whole numbers"), ({}, "positions"),
            (True, "positions must be whole numbers"), ("nowhere", "has no word 'nowhere'"), ("", "expected a word of the question"),
            ("word:", "expected a word of the question"), ([], "no positions were given"), ([1.5], "positions must be whole numbers"),
            ([999], "position 999 is out of range"), ([-999], "position -999 is out of range"), ((0, 1), "could mean two positions or one patch"),
            ([(0, 0, 0)], "a patch is a (row, column) pair"), ([(99, 0)], "is outside the 12 x 12 grid"), ([(0, "a")], "a patch must be whole numbers"),
            ([(0, 0), 1], "positions must be whole numbers"), (range(10**9), "positions were given"), (torch.tensor([0.5]), "positions must be whole numbers"),
            (np.array([True, False]), "positions must be whole numbers"), (Each((-1,)), "1 positions were given, one a sample"), (Each((5, 5)), "is out of range"),
        )
    ),
    bad("positions of their own that are letters", lambda p: Each("ab"), "positions must be whole numbers", SiteError),
    bad("a patch of a sample that is not there", tokens(lambda t: t.patch(9, 0, 0)), "this batch has samples 0 to 1", SiteError),
    bad("a patch of a second image", tokens(lambda t: t.patch(0, 0, 0, image=1)), "has 1 image(s)", SiteError),
    bad("a patch in a row of letters", tokens(lambda t: t.patch(0, "a", 0)), "a patch must be whole numbers", SiteError),
    bad("the grid at a letter", tokens(lambda t: t.grid_of(0, "a")), "a position must be whole numbers", SiteError),
    bad("strings of a sample that is not there", tokens(lambda t: t.strings(9)), "this batch has samples 0 to 1", SiteError),
    bad("a word that is a number", tokens(lambda t: t.find(3)), "expected a word of the question, got 3", SiteError),
    *(
        bad(f"a cache with {options}", lambda p, o=options: mechvrp.cache(p.model, p.samples, "resid_post", **o), says, InputError)
        for options, says in (
            ({"device": "abacus"}, "no device 'abacus'"), ({"dtype": "float32"}, "dtype is a torch dtype"),
            ({"batch_size": 0}, "batch_size must be at least 1"), ({"batch_size": 1.5}, "batch_size must be at least 1"),
        )
    ),
    bad("a cache of a name", lambda p: mechvrp.cache("tiny-llava", p.batch, "resid_post"), "expected a model from mechvrp.load", InputError),
    bad("a cache of None", lambda p: mechvrp.cache(p.model, None, "resid_post"), "expected a batch", InputError),
    bad("a cache of no samples", lambda p: mechvrp.cache(p.model, [], "resid_post"), "no samples to cache", InputError),
    *(
        bad(f"a box {box}", lambda p, b=box: box_region(b, (10, 10), (2, 2)), says, InputError)
        for box, says in (
            ((5, 5, 0, 0), "left before right"), ((0, 0, 99, 99), "inside the image"), ((float("nan"), 0, 5, 5), "inside the image"),
            ((0, 0, 5), "a box is 4 numbers"), ("abcd", "a box is 4 numbers"), (None, "a box is 4 numbers"),
        )
    ),
    bad("a box in an image without pixels", lambda p: box_region((0, 0, 1, 1), (0, 10), (2, 2)), "at least 1 by 1", InputError),
    bad("a cell beyond the layout", lambda p: cell_region((9, 9), (6, 6)), "is outside a layout of 3 x 3", InputError),
]  # fmt: skip
