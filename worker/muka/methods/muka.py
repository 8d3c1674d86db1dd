"""MUKA: the model-uncertainty-aware choice of teachers (Li et al. 2021, arXiv 2112.07327)."""

from typing import ClassVar

import torch
from torch import Tensor

from worker.muka.methods.interface import Evidence, GoldenKL, Need, Supervision, TeacherChoice
from worker.muka.recipe import Method
from worker.muka.scoring import TeacherOutputs
from worker.muka.supervision import golden_supervision, integration_weights, margins
from worker.muka.uncertainty import SCORES, TeacherBelief, entropy


class Muka:
    """Golden supervision from the most certain teachers, weighted by the margin."""

    name: ClassVar[str] = "muka"
    needs: ClassVar[frozenset[Need]] = frozenset()
    trains_student: ClassVar[bool] = True

    def supervise(self, evidence: Evidence, method: Method) -> Supervision:
        """Columns `q` [n, |L|] and `m` [n] (ones without margin re-weighting)."""
        u = teacher_scores(evidence, method)
        w = integration_weights(u, method.integration, method.temperature)
        m = margins(u)
        p = [torch.softmax(o.logits / method.teacher_temperature, dim=-1) for o in evidence.outputs]
        q = golden_supervision(p, w, evidence.label_space)
        weight = m if method.reweight == "margin" else torch.ones_like(m)
        objective = GoldenKL(method.teacher_temperature)
        return Supervision({"q": q, "m": weight}, objective, TeacherChoice(u, w, m))


def teacher_scores(evidence: Evidence, method: Method) -> Tensor:
    """Each teacher's certainty score for each text: u [n, N]."""
    score = SCORES[method.score]
    beliefs = [_belief(evidence, i, outputs) for i, outputs in enumerate(evidence.outputs)]
    return torch.stack([score(belief) for belief in beliefs], dim=-1)


def _belief(evidence: Evidence, i: int, outputs: TeacherOutputs) -> TeacherBelief:
    p_hat = outputs.mc_probabilities
    kept = evidence.label_space.project(i, p_hat)
    return TeacherBelief(kept, outputs.logits, outputs.pass_entropy, entropy(p_hat))
