"""Reliability: what a model answers, whether it is right, and how sure it is."""

from mechvrp.reliability.answers import Answer as Answer
from mechvrp.reliability.answers import greedy_answers as greedy_answers

__all__ = ["Answer", "greedy_answers"]
