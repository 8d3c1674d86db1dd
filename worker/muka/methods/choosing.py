"""What the methods share that choose teachers by their certainty (sections 3 to 5)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from worker.muka.methods.interface import Evidence, Method, TeacherChoice
from worker.muka.parameters import parameter
from worker.muka.recipe import SCORES as SCORE_NAMES
from worker.muka.recipe import UNSAMPLED_SCORES, Sampling
from worker.muka.scoring import TeacherOutputs
from worker.muka.supervision import golden_supervision, integration_weights, margins
from worker.muka.uncertainty import SCORES, TeacherBelief, entropy


@dataclass(frozen=True, kw_only=True)
class ChoosingMethod(Method):
    """A method that weights each teacher by its certainty score u."""

    integration: Literal["soft", "hard"] = parameter(
        "soft",
        "`soft` weights the teachers by softmax(u/tau), `hard` takes the most certain one alone.",
        choices=("soft", "hard"),
    )
    score: str = parameter(
        "entropy",
        "The certainty score u of a teacher; `entropy` is the paper's. `energy` needs no dropout passes, and "
        "takes none.",
        choices=SCORE_NAMES,
    )
    mc_samples: int = parameter(
        16,
        "K: Monte-Carlo dropout passes per text and teacher; 0: the deterministic pass alone.",
        minimum=0,
        maximum=256,
    )
    mc_seed: int = parameter(
        1, "Of the dropout masks; another seed asks the teachers again.", minimum=0, maximum=2**53 - 1
    )
    adaptive: bool = parameter(
        False, "Stop sampling a text once its ranking of teachers is decided; K is then the most passes."
    )
    adaptive_bound: float = parameter(
        0.04,
        "With `adaptive`: a margin above this plus two standard errors (more for few passes, by Student's t) "
        "is decided; both shrink as K comes nearer.",
        minimum=0.0,
        maximum=1.0,
    )
    temperature: float = parameter(0.2, "tau of the soft weights.", minimum=1e-6, maximum=100.0)
    teacher_temperature: float = parameter(
        1.0, "T on the logits of teachers and student.", minimum=1e-6, maximum=100.0
    )

    @property
    def sampling(self) -> Sampling:
        """K dropout passes, or up to K; none for a score that does not look at them."""
        if self.score in UNSAMPLED_SCORES:
            return Sampling()
        bound = self.adaptive_bound if self.adaptive else None
        return Sampling(passes=self.mc_samples, seed=self.mc_seed, adaptive_bound=bound, score=self.score)

    def choose(self, evidence: Evidence) -> TeacherChoice:
        """Scores, weights and margins of every text."""
        u = teacher_scores(evidence, self.score)
        return TeacherChoice(u, integration_weights(u, self.integration, self.temperature), margins(u))

    def golden(self, evidence: Evidence, w: Tensor) -> Tensor:
        """Golden supervision q [n, |L|] of the teachers weighted by w [n, N] (section 4)."""
        p = [torch.softmax(o.logits / self.teacher_temperature, dim=-1) for o in evidence.outputs]
        return golden_supervision(p, w, evidence.label_space)


def teacher_scores(evidence: Evidence, score: str) -> Tensor:
    """Each teacher's certainty, by the score of that name, for each text: u [n, N]."""
    beliefs = [_belief(evidence, i, outputs) for i, outputs in enumerate(evidence.outputs)]
    return torch.stack([SCORES[score](belief) for belief in beliefs], dim=-1)


def _belief(evidence: Evidence, i: int, outputs: TeacherOutputs) -> TeacherBelief:
    p_hat = outputs.mc_probabilities
    names = evidence.label_space.teachers[i]
    classes = [index for index, name in enumerate(names) if name is not None]
    logits = outputs.logits if len(classes) == len(names) else outputs.logits[:, classes]
    kept = evidence.label_space.project(i, p_hat)
    return TeacherBelief(kept, logits, outputs.pass_entropy, entropy(p_hat), len(names))
