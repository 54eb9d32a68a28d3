"""Model cards of embedded checkpoints: measured, never written by hand."""

from mechvrp.cards.card import card_text as card_text
from mechvrp.cards.evaluation import evaluate_checkpoint as evaluate_checkpoint
from mechvrp.cards.evaluation import prepare as prepare
from mechvrp.cards.evaluation import write_card as write_card

__all__ = ["card_text", "evaluate_checkpoint", "prepare", "write_card"]
