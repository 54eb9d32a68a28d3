"""Models that no family describes: their sites found by structure, each verified by runs."""

from mechvrp.models.structure.facts import Facts as Facts
from mechvrp.models.structure.family import Structural as Structural
from mechvrp.models.structure.family import structural as structural
from mechvrp.models.structure.report import FamilyReport as FamilyReport
from mechvrp.models.structure.report import ReportRow as ReportRow
from mechvrp.models.structure.report import check_family as check_family

__all__ = ["Facts", "FamilyReport", "ReportRow", "Structural", "check_family", "structural"]
