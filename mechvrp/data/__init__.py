"""Benchmarks: samples, loaders by name, splits that keep images whole, answer scoring."""

from mechvrp.data.choices import read_letter as read_letter
from mechvrp.data.judging import JudgeExport as JudgeExport
from mechvrp.data.judging import JudgeScore as JudgeScore
from mechvrp.data.judging import JudgeScores as JudgeScores
from mechvrp.data.judging import export_for_judge as export_for_judge
from mechvrp.data.judging import import_reviews as import_reviews
from mechvrp.data.pope_figures import PopeScores as PopeScores
from mechvrp.data.pope_figures import pope_scores as pope_scores
from mechvrp.data.readings import normalise_answer as normalise_answer
from mechvrp.data.readings import official_yes_no as official_yes_no
from mechvrp.data.readings import read_count as read_count
from mechvrp.data.readings import strict_yes_no as strict_yes_no
from mechvrp.data.registry import DatasetInfo as DatasetInfo
from mechvrp.data.registry import available as available
from mechvrp.data.registry import load as load
from mechvrp.data.registry import register_dataset as register_dataset
from mechvrp.data.sample import Dataset as Dataset
from mechvrp.data.sample import Sample as Sample
from mechvrp.data.sample import Skipped as Skipped
from mechvrp.data.scene_counterfactual import counterfactual_pair as counterfactual_pair
from mechvrp.data.scene_counterfactual import one_digit_replaced as one_digit_replaced
from mechvrp.data.scoring import answer_problem as answer_problem
from mechvrp.data.scoring import count_error as count_error
from mechvrp.data.scoring import is_correct as is_correct
from mechvrp.data.scoring import normalised_for_vote as normalised_for_vote
from mechvrp.data.scoring import score as score
from mechvrp.data.splits import group_folds as group_folds
from mechvrp.data.splits import train_test_split as train_test_split
from mechvrp.data.vqa_scoring import normalise_vqa as normalise_vqa
from mechvrp.data.vqa_scoring import vqa_accuracy as vqa_accuracy

__all__ = [
    "Dataset",
    "DatasetInfo",
    "JudgeExport",
    "JudgeScore",
    "JudgeScores",
    "PopeScores",
    "Sample",
    "Skipped",
    "answer_problem",
    "available",
    "count_error",
    "counterfactual_pair",
    "export_for_judge",
    "group_folds",
    "import_reviews",
    "is_correct",
    "load",
    "normalise_answer",
    "normalise_vqa",
    "normalised_for_vote",
    "official_yes_no",
    "one_digit_replaced",
    "pope_scores",
    "read_count",
    "read_letter",
    "register_dataset",
    "score",
    "strict_yes_no",
    "train_test_split",
    "vqa_accuracy",
]
