"""What is known of the trained student: the report, and its answers for every text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from worker import report
from worker.corpus import LabelledTexts, read_labelled
from worker.evaluation import evaluate_all
from worker.muka import Ensemble, Evidence, TeacherChoice, predictive_entropy
from worker.muka.columns import filled
from worker.muka.parts import answered, choose
from worker.scores import Scores
from worker.stages.run import Run
from worker.stages.scoring import score_held_out
from worker.stages.training import Trained


@dataclass(frozen=True)
class Findings:
    """What is known of a trained student."""

    report: dict[str, Any]
    choice: TeacherChoice
    entropy: torch.Tensor
    """Of each teacher's answer, in nats [n, N]."""
    predictions: torch.Tensor
    """Its probabilities for the corpus [n, |L|]."""


def evaluate(run: Run, scores: list[Scores], trained: Trained) -> Findings:
    """On the corpus, and where there is one on the labelled evaluation corpus."""
    work = run.assignment
    held_out_corpus = work.evaluation_corpus
    gold: LabelledTexts | None = None
    if held_out_corpus is not None:
        gold = work.patience.insist(partial(read_labelled, work.store, held_out_corpus, run.scratch))
    held_out = len(gold.texts) if gold else 0
    counter = run.counter(len(run.texts) + held_out * (1 + len(scores)))

    def predict(texts: Sequence[str]) -> torch.Tensor:
        training = run.training
        return trained.student.predict(
            texts, max_length=training.max_length, precision=training.precision, on_batch=counter
        )

    evidence = Evidence(run.labels, [found.outputs for found in scores])
    ensemble, predictions = Ensemble.like(run.method), answered(predict, run.texts, run.scratch)
    choice = trained.supervision.choice or choose(ensemble, evidence, run.scratch)
    told = report.of_training(
        work,
        texts=run.texts,
        scores=scores,
        supervision=trained.supervision,
        choice=choice,
        trained=trained.report,
        predictions=predictions,
    )
    if gold is not None:
        answers = [found.outputs for found in score_held_out(run, gold.texts, counter)]
        student = answered(predict, gold.texts)
        told["evaluation"] = evaluate_all(run.labels, gold, answers, student, ensemble)
    return Findings(told, choice, _entropy(evidence, run.scratch), predictions)


def _entropy(evidence: Evidence, scratch: Path) -> torch.Tensor:
    def of_part(span: slice) -> dict[str, torch.Tensor]:
        return {"entropy": predictive_entropy(evidence.label_space, evidence.rows(span).outputs)}

    return filled(len(evidence), of_part, scratch)["entropy"]
