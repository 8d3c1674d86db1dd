"""Consensus: a text belongs to the teacher in whose eyes it, and its neighbours, have close company."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from worker.muka.methods.choosing import teacher_scores
from worker.muka.methods.interface import Evidence, GoldenKL, Method, Need, Supervision, TeacherChoice
from worker.muka.neighbours import Neighbours, Space, nearest, reference_rows
from worker.muka.parameters import parameter
from worker.muka.supervision import golden_supervision, integration_weights, margins

_COMPANIONS = 3
_ROUNDS = 2
_FLOOR = 0.03
"""Of 1 - cosine: texts that a teacher cannot tell apart are not infinitely familiar."""
_FEW, _ENOUGH = 3, 20
"""Texts per label: below the first, neighbours say nothing; from the second on, they count in full."""


@dataclass(frozen=True, kw_only=True)
class Consensus(Method):
    """Golden supervision from the teachers to whom a text and its neighbours are familiar; one pass each.

    A fine-tuned teacher draws the texts of its own classes together into tight clusters and leaves texts
    that it does not know scattered, however certain its softmax is about them. So the company that a text
    has in a teacher's own features tells more of its adequacy than certainty does. It is added to the
    certainty, and smoothed over the text's neighbours in all teachers' features together.
    """

    name: ClassVar[str] = "consensus"
    source: ClassVar[str] = "muka's own, after Li et al. 2021, https://arxiv.org/abs/2112.07327"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEACHER_FEATURES})

    familiarity: float = parameter(
        4.0,
        "Weight of the company that a text has in a teacher's features, against its certainty.",
        minimum=0.0,
        maximum=100.0,
    )
    neighbours: int = parameter(
        10, "Texts whose scores count as much as a text's own.", minimum=0, maximum=256
    )
    temperature: float = parameter(0.5, "tau of the soft weights.", above=0.0, maximum=100.0)
    teacher_temperature: float = parameter(
        1.0, "T on the logits of teachers and student.", above=0.0, maximum=100.0
    )
    reweight: Literal["margin", "none"] = parameter(
        "none",
        "`margin` weights each text by the best minus the second-best weight.",
        choices=("margin", "none"),
    )

    def supervise(self, evidence: Evidence) -> Supervision:
        """Columns `q` [n, |L|] and `m` [n] (ones without margin re-weighting)."""
        w = integration_weights(self.scores(evidence), "soft", self.temperature)
        choice = TeacherChoice(teacher_scores(evidence, "entropy"), w, margins(w))
        p = [torch.softmax(o.logits / self.teacher_temperature, dim=-1) for o in evidence.outputs]
        m = choice.m if self.reweight == "margin" else torch.ones_like(choice.m)
        columns = {"q": golden_supervision(p, w, evidence.label_space), "m": m}
        return Supervision(columns, GoldenKL(self.teacher_temperature), choice, self.teacher_temperature)

    def scores(self, evidence: Evidence) -> Tensor:
        """Certainty and familiarity of each teacher, smoothed over neighbours: g [n, N]."""
        g = teacher_scores(evidence, "entropy")
        texts_per_label = len(evidence) / len(evidence.label_space)
        company = min(max((texts_per_label - _FEW) / (_ENOUGH - _FEW), 0.0), 1.0)
        if not company:
            return g
        spaces = [Space.of(features) for features in _features(evidence)]
        reference = reference_rows(len(evidence), evidence.seed)
        on_block = evidence.on_block
        known = [familiarity(nearest([space], _COMPANIONS, reference, on_block)) for space in spaces]
        g = g + self.familiarity * company * torch.stack(known, dim=-1)
        k = min(self.neighbours, int(texts_per_label / 2))
        return _smoothed(g, nearest(spaces, k, reference, on_block)) if k else g


def familiarity(companions: Neighbours) -> Tensor:
    """-mean log(distance + 0.03) to the nearest texts in a teacher's features: [n], a log density."""
    return -torch.log((1 - companions.cosines).clamp_min(0) + _FLOOR).mean(-1)


def _smoothed(g: Tensor, neighbours: Neighbours) -> Tensor:
    for _ in range(_ROUNDS):
        g = (g + neighbours.mean(g)) / 2
    return g


def _features(evidence: Evidence) -> list[Tensor]:
    features = [outputs.features for outputs in evidence.outputs if outputs.features is not None]
    if len(features) != len(evidence.outputs):
        raise ValueError("the evidence has no features; allowed: teachers scored with features=True")
    return features
