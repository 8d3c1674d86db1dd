"""What is known of the trained student, or of the teachers together: the report, and every text's answer."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker import report
from worker.corpus import LabelledTexts
from worker.evaluation import evaluate_all
from worker.muka import Ensemble, Evidence, TeacherChoice, predictive_entropy
from worker.muka.columns import filled
from worker.muka.parts import answered, choose, supervise
from worker.scores import Scores
from worker.stages.run import Run
from worker.stages.scoring import score_held_out
from worker.stages.training import Trained


@dataclass(frozen=True)
class Findings:
    """What is known of who answers: a trained student, or the teachers together."""

    report: dict[str, Any]
    choice: TeacherChoice
    entropy: torch.Tensor
    """Of each teacher's answer, in nats [n, N]."""
    predictions: torch.Tensor
    """The answers' probabilities for the corpus [n, |L|]."""
    answering_seconds: float
    """That the answers took."""


def evaluate(run: Run, scores: list[Scores], trained: Trained) -> Findings:
    """The student, on the corpus, and where there is one on the labelled evaluation corpus."""
    counter = run.counter(len(run.texts) + _held_out(run) * (1 + len(scores)))

    def predict(texts: Sequence[str]) -> torch.Tensor:
        training = run.training
        return trained.student.predict(
            texts, max_length=training.max_length, precision=training.precision, on_batch=counter
        )

    evidence = Evidence(run.labels, [found.outputs for found in scores])
    started = time.monotonic()
    predictions = answered(predict, run.texts, run.scratch)
    answering_seconds = time.monotonic() - started
    choice = trained.supervision.choice or choose(Ensemble.like(run.method), evidence, run.scratch)
    entropy = _entropy(evidence, run.scratch)
    told = report.of_training(
        run.assignment,
        texts=run.texts,
        scores=scores,
        supervision=trained.supervision,
        choice=choice,
        entropy=entropy,
        trained=trained.report,
        predictions=predictions,
    )
    if run.gold is not None:
        told["evaluation"] = _on_held_out(run, run.gold, counter, predict)
    return Findings(told, choice, entropy, predictions, answering_seconds)


def combine(run: Run, scores: list[Scores]) -> Findings:
    """The teachers together, likewise: what the method would teach a student is the answer itself."""
    counter = run.counter(_held_out(run) * len(scores))
    evidence = Evidence(run.labels, [found.outputs for found in scores], on_block=run.stop_or_go_on)
    started = time.monotonic()
    supervision = supervise(run.method, evidence, run.scratch)
    answering_seconds = time.monotonic() - started
    choice = supervision.choice or choose(Ensemble.like(run.method), evidence, run.scratch)
    predictions, entropy = supervision.columns["q"], _entropy(evidence, run.scratch)
    told = report.of_answers(
        run.assignment,
        texts=run.texts,
        scores=scores,
        choice=choice,
        decides=supervision.choice is not None,
        entropy=entropy,
        predictions=predictions,
    )
    if run.gold is not None:
        told["evaluation"] = _on_held_out(run, run.gold, counter, None)
    return Findings(told, choice, entropy, predictions, answering_seconds)


def _held_out(run: Run) -> int:
    return len(run.gold.texts) if run.gold else 0


def _on_held_out(
    run: Run,
    gold: LabelledTexts,
    counter: Callable[[float], None],
    predict: Callable[[Sequence[str]], torch.Tensor] | None,
) -> dict[str, Any]:
    """Everyone's figures; `predict`: the student's, where there is one."""
    corpus, scores = run.assignment.evaluation_corpus, score_held_out(run, gold.texts, counter)
    student = answered(predict, gold.texts, run.scratch) if predict else None
    told = evaluate_all(
        run.labels,
        gold,
        [found.outputs for found in scores],
        student,
        Ensemble.like(run.method),
        on_block=run.stop_or_go_on,
    )
    facts = {} if corpus is None else {"corpus": report.corpus_facts(corpus)}
    return told | facts | {"passes_computed": sum(found.passes for found in scores)}


def _entropy(evidence: Evidence, scratch: Path) -> torch.Tensor:
    def of_part(span: slice) -> dict[str, torch.Tensor]:
        return {"entropy": predictive_entropy(evidence.label_space, evidence.rows(span).outputs)}

    return filled(len(evidence), of_part, scratch)["entropy"]
