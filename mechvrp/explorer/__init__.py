"""The notebook explorer: ``mechvrp.explore(model, dataset)``, and what stands behind it without a widget."""

from mechvrp.explorer.answering import edited_answers as edited_answers
from mechvrp.explorer.examples import Examples as Examples
from mechvrp.explorer.growing import circuit_curves as circuit_curves
from mechvrp.explorer.jobs import Cancelled as Cancelled
from mechvrp.explorer.jobs import Job as Job
from mechvrp.explorer.maps import EffectMap as EffectMap
from mechvrp.explorer.outcomes import Outcome as Outcome
from mechvrp.explorer.outcomes import Word as Word
from mechvrp.explorer.places import EXPLORED as EXPLORED
from mechvrp.explorer.places import Place as Place
from mechvrp.explorer.session import CurveView as CurveView
from mechvrp.explorer.session import Explorer as Explorer
from mechvrp.explorer.widget import explore as explore

__all__ = [
    "EXPLORED",
    "Cancelled",
    "CurveView",
    "EffectMap",
    "Examples",
    "Explorer",
    "Job",
    "Outcome",
    "Place",
    "Word",
    "circuit_curves",
    "edited_answers",
    "explore",
]
