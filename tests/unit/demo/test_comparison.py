import pytest
import torch

from demo.comparison import Answers, Score, best, compare, naive_combination, score, verdict

BILLING = Answers(("refund", "invoice"), torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.5, 0.5]]))
SHIPPING = Answers(("late", "lost"), torch.tensor([[0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]]))
STUDENT = Answers(
    ("refund", "invoice", "late", "lost"),
    torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]]),
)
GOLD = ["refund", "invoice", "late", "lost"]


def test_best_is_the_most_probable_class() -> None:
    assert best(BILLING) == ["refund", "invoice", "refund", "refund"]


def test_the_naive_combination_takes_the_largest_probability_of_all_teachers() -> None:
    assert naive_combination([BILLING, SHIPPING]) == ["refund", "lost", "lost", "lost"]


def test_a_shared_class_counts_with_the_surer_teacher() -> None:
    other = Answers(("late", "refund"), torch.tensor([[0.05, 0.95]]))
    one = Answers(("refund", "invoice"), torch.tensor([[0.6, 0.4]]))
    assert naive_combination([one, other]) == ["refund"]


def test_own_texts_are_those_whose_class_it_knows() -> None:
    made = score("billing", best(BILLING), GOLD, BILLING.labels)
    assert made == Score("billing", classes=2, own=1.0, all=0.5, models=1)


def test_a_teacher_without_a_text_of_its_own_scores_zero() -> None:
    assert score("x", ["a"], ["b"], ["c"]).own == 0.0


def test_other_numbers_of_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        score("x", ["a"], ["b", "c"], ["b"])


def test_compare_lists_teachers_combination_and_student() -> None:
    scores = compare([("billing", BILLING), ("shipping", SHIPPING)], STUDENT, GOLD)
    assert [(s.name, s.classes, s.all, s.models) for s in scores] == [
        ("billing", 2, 0.5, 1),
        ("shipping", 2, 0.25, 1),
        ("all teachers together", 4, 0.5, 2),
        ("the student", 4, 1.0, 1),
    ]


@pytest.mark.parametrize(
    ("together", "told"), [(0.8, "10.0 points worse"), (0.95, "5.0 points better, and costs 2")]
)
def test_the_verdict_is_honest_both_ways(together: float, told: str) -> None:
    scores = [
        Score("billing", 2, 1.0, 0.4, 1),
        Score("shipping", 2, 1.0, 0.3, 1),
        Score("all teachers together", 4, together, together, 2),
        Score("the student", 4, 0.9, 0.9, 1),
    ]
    assert "50.0 points better on all classes" in verdict(scores)
    assert told in verdict(scores)
