"""Everyone's figures on held-out texts, with numbers worked out by hand."""

import json
from functools import partial

import pytest
import torch

from worker import evaluation
from worker.corpus import LabelledTexts
from worker.evaluation import evaluate_all
from worker.muka import Ensemble, LabelSpace
from worker.muka.forward import Answer
from worker.muka.scoring import unsampled

SPACE = LabelSpace.union([["a", "b"], ["b", "c"]])
GOLD = LabelledTexts(["one", "two", "three", "four"], ["a", "b", "c", "elsewhere"])
SURE, UNSURE = 9.0, 0.1
# The first teacher is right about a, sure of a on the third text; the second is right about b, unsure of c.
ANSWERS = [
    unsampled(Answer(torch.tensor([[SURE, 0.0], [UNSURE, 0.0], [SURE, 0.0], [SURE, 0.0]]))),
    unsampled(Answer(torch.tensor([[UNSURE, 0.0], [SURE, 0.0], [0.0, UNSURE], [UNSURE, 0.0]]))),
]
STUDENT = torch.eye(3)[[0, 1, 2, 2]]


@pytest.fixture
def told() -> dict:
    ensemble = Ensemble(mc_samples=0, integration="hard")
    found = evaluate_all(SPACE, GOLD, ANSWERS, STUDENT, ensemble)
    assert json.loads(json.dumps(found)) == found
    return found


def test_everyone_is_measured_on_all_texts_and_on_those_of_each_teacher(told: dict) -> None:
    assert [told[name]["accuracy"] for name in ("student", "ensemble", "naive_ensemble")] == [0.75, 0.5, 0.5]
    assert [teacher["accuracy"] for teacher in told["teachers"]] == [0.25, 0.5]
    assert told["student"]["accuracy_by_teacher"] == [1.0, 1.0]
    assert told["ensemble"]["accuracy_by_teacher"] == [1.0, 0.5]
    assert told["teachers"][0]["accuracy_by_teacher"] == [0.5, 0.0]


def test_block_by_block_everyone_is_measured_as_at_once(told: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "spans", partial(evaluation.spans, size=3))
    blocks: list[None] = []
    found = evaluate_all(
        SPACE,
        GOLD,
        ANSWERS,
        STUDENT,
        Ensemble(mc_samples=0, integration="hard"),
        on_block=lambda: blocks.append(None),
    )
    assert (found, len(blocks)) == (told, 2)


def test_without_a_student_the_others_figures_are_the_same(told: dict) -> None:
    found = evaluate_all(SPACE, GOLD, ANSWERS, None, Ensemble(mc_samples=0, integration="hard"))
    assert found == {name: figures for name, figures in told.items() if name != "student"}


def test_a_student_that_is_always_certain_is_off_by_its_errors(told: dict) -> None:
    assert told["student"]["calibration_error"] == pytest.approx(0.25)


def test_the_right_teacher_is_one_that_knows_the_gold_label(told: dict) -> None:
    # a: the first, which knows it; b: the second; c: the first, which does not; the fourth nobody knows.
    assert told["right_teacher_chosen"] == pytest.approx(2 / 3)


def test_gold_labels_that_nobody_knows_are_named(told: dict) -> None:
    assert told["unknown_labels"] == ["elsewhere"]
    assert told["student"]["per_label"][-1]["label"] == "elsewhere"


def test_every_label_has_precision_and_recall_by_everyone(told: dict) -> None:
    assert told["student"]["per_label"][2] == {
        "label": "c",
        "support": 1,
        "predicted": 2,
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
    }
    # The first teacher says a, a, a, a; the certain one of both a, b, a, a.
    for answers, b in ((told["teachers"][0], (0, 0.0, 0.0)), (told["ensemble"], (1, 1.0, 1.0))):
        found = {each["label"]: each for each in answers["per_label"]}
        assert [found["b"][key] for key in ("predicted", "precision", "recall")] == list(b)
        assert found["c"]["recall"] == 0.0
    assert told["ensemble"]["per_label"][0]["precision"] == pytest.approx(1 / 3)


def test_a_confusion_matrix_holds_the_cells_that_occur_and_at_most_so_many(
    told: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"gold": "elsewhere", "predicted": "c", "texts": 1} in told["student"]["confusion"]
    assert len(told["student"]["confusion"]) == told["student"]["confusion_cells"] == 4
    assert {"gold": "c", "predicted": "a", "texts": 1} in told["ensemble"]["confusion"]
    monkeypatch.setattr(evaluation, "_MOST_CELLS", 2)
    cut = evaluate_all(SPACE, GOLD, ANSWERS, torch.eye(3)[[0, 0, 0, 0]], Ensemble(mc_samples=0))["student"]
    assert (len(cut["confusion"]), cut["confusion_cells"]) == (2, 4)


def test_texts_of_one_teacher_only_leave_the_others_without_a_figure() -> None:
    gold = LabelledTexts(["one"], ["a"])
    answers = [unsampled(Answer(outputs.logits[:1])) for outputs in ANSWERS]
    found = evaluate_all(SPACE, gold, answers, STUDENT[:1], Ensemble(mc_samples=0))
    assert found["student"]["accuracy_by_teacher"] == [1.0, None]
