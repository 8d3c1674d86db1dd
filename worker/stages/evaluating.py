"""What is known of the trained student: the report, and its answers for every text."""

from dataclasses import dataclass
from typing import Any

import torch

from worker import report
from worker.corpus import read_labelled
from worker.evaluation import evaluate_all
from worker.muka import Ensemble, Evidence, TeacherChoice, predictive_entropy
from worker.scores import Scores
from worker.stages.run import Run
from worker.stages.scoring import ask
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
    gold = read_labelled(work.store, work.evaluation_corpus) if work.evaluation_corpus else None
    held_out = len(gold.texts) if gold else 0
    counter = run.counter(len(run.texts) + held_out * (1 + len(run.folders)))

    def predict(texts: list[str]) -> torch.Tensor:
        training = run.training
        return trained.student.predict(
            texts, max_length=training.max_length, precision=training.precision, on_batch=counter
        )

    ensemble, predictions = Ensemble.like(run.method), predict(run.texts)
    choice = ensemble.choose(Evidence(run.labels, [found.outputs for found in scores]))
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
        answers = [found.outputs for found in ask(run, gold.texts, counter)]
        told["evaluation"] = evaluate_all(run.labels, gold, answers, predict(gold.texts), ensemble)
    entropy = predictive_entropy(run.labels, [found.outputs for found in scores])
    return Findings(told, choice, entropy, predictions)
