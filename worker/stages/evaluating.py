"""What is known of the trained student, or of the teachers together: the report, and every text's answer."""

from collections.abc import Callable, Sequence
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


def evaluate(run: Run, scores: list[Scores], trained: Trained) -> Findings:
    """The student, on the corpus, and where there is one on the labelled evaluation corpus."""
    gold = _gold(run)
    counter = run.counter(len(run.texts) + _held_out(gold) * (1 + len(scores)))

    def predict(texts: Sequence[str]) -> torch.Tensor:
        training = run.training
        return trained.student.predict(
            texts, max_length=training.max_length, precision=training.precision, on_batch=counter
        )

    evidence = Evidence(run.labels, [found.outputs for found in scores])
    predictions = answered(predict, run.texts, run.scratch)
    choice = trained.supervision.choice or choose(Ensemble.like(run.method), evidence, run.scratch)
    told = report.of_training(
        run.assignment,
        texts=run.texts,
        scores=scores,
        supervision=trained.supervision,
        choice=choice,
        trained=trained.report,
        predictions=predictions,
    )
    if gold is not None:
        told["evaluation"] = _on_held_out(run, gold, counter, predict)
    return Findings(told, choice, _entropy(evidence, run.scratch), predictions)


def combine(run: Run, scores: list[Scores]) -> Findings:
    """The teachers together, likewise: what the method would teach a student is the answer itself."""
    gold = _gold(run)
    counter = run.counter(_held_out(gold) * len(scores))
    evidence = Evidence(run.labels, [found.outputs for found in scores], on_block=run.stop_or_go_on)
    supervision = supervise(run.method, evidence, run.scratch)
    choice = supervision.choice or choose(Ensemble.like(run.method), evidence, run.scratch)
    predictions = supervision.columns["q"]
    told = report.of_answers(
        run.assignment,
        texts=run.texts,
        scores=scores,
        choice=choice,
        decides=supervision.choice is not None,
        predictions=predictions,
    )
    if gold is not None:
        told["evaluation"] = _on_held_out(run, gold, counter, None)
    return Findings(told, choice, _entropy(evidence, run.scratch), predictions)


def _gold(run: Run) -> LabelledTexts | None:
    """The texts of the evaluation corpus with their labels, if the job names one."""
    work = run.assignment
    corpus = work.evaluation_corpus
    if corpus is None:
        return None
    return work.patience.insist(partial(read_labelled, work.store, corpus, run.scratch))


def _held_out(gold: LabelledTexts | None) -> int:
    return len(gold.texts) if gold else 0


def _on_held_out(
    run: Run,
    gold: LabelledTexts,
    counter: Callable[[float], None],
    predict: Callable[[Sequence[str]], torch.Tensor] | None,
) -> dict[str, Any]:
    """Everyone's figures; `predict`: the student's, where there is one."""
    answers = [found.outputs for found in score_held_out(run, gold.texts, counter)]
    student = answered(predict, gold.texts) if predict else None
    return evaluate_all(run.labels, gold, answers, student, Ensemble.like(run.method))


def _entropy(evidence: Evidence, scratch: Path) -> torch.Tensor:
    def of_part(span: slice) -> dict[str, torch.Tensor]:
        return {"entropy": predictive_entropy(evidence.label_space, evidence.rows(span).outputs)}

    return filled(len(evidence), of_part, scratch)["entropy"]
