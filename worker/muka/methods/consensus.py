"""Consensus: a text belongs to the teacher among whose labels' clusters it lies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from worker.muka.clusters import FeatureSpace, Mixture
from worker.muka.fitting import Fitting
from worker.muka.methods.choosing import teacher_scores
from worker.muka.methods.interface import Evidence, GoldenKL, Method, Need, Supervision, TeacherChoice
from worker.muka.parameters import parameter
from worker.muka.seeds import derive_seed
from worker.muka.splits import find_lost_labels
from worker.muka.supervision import golden_supervision, margins

REFERENCE_TEXTS = 32_768
"""Clusters are learnt from so many texts at most, so that time and memory do not depend on the corpus."""

_ROWS_AT_ONCE = 1_024
_ROUNDS = 8
_FEWEST_DIRECTIONS = 16
"""As many as there are labels to tell apart, but never less: strangers are told by the directions between."""
_CERTAINTY = 10.0
"""What a difference of certainty weighs against one of log density. Certainty alone, with which the first
round begins, then has the paper's tau of 0.2 by default."""
_FEW, _ENOUGH = 3, 20
"""Texts per label: below the first there are no clusters to learn; from the second on they count in full."""


@dataclass(frozen=True, kw_only=True)
class Consensus(Method):
    """Golden supervision from the teachers in whose clusters of labels a text lies; one pass each.

    A softmax can be certain of anything. But in the features of the teacher that knows a text, the text
    lies in the tight cluster of its label, together with others that the other teachers see alike, too.
    These clusters are learnt from the corpus (`worker.muka.clusters`), starting from the teachers' certainty.
    """

    name: ClassVar[str] = "consensus"
    source: ClassVar[str] = "muka's own, after Li et al. 2021, https://arxiv.org/abs/2112.07327"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEACHER_FEATURES})
    takes_parts: ClassVar[bool] = True

    temperature: float = parameter(
        2.0, "tau of the soft weights, on log densities.", minimum=1e-6, maximum=100.0
    )
    teacher_temperature: float = parameter(
        1.0, "T on the logits of teachers and student.", minimum=1e-6, maximum=100.0
    )
    reweight: Literal["margin", "none"] = parameter(
        "none",
        "`margin` weights each text by the best minus the second-best weight.",
        choices=("margin", "none"),
    )
    head: Literal["random", "discriminant"] = parameter(
        "discriminant",
        "How the student's head starts: as the discriminant of its features, or `random`.",
        choices=("discriminant", "random"),
    )

    def supervise(self, evidence: Evidence) -> Supervision:
        """Columns `q` [n, |L|] and `m` [n] (ones without margin re-weighting)."""
        w = torch.softmax(self.scores(evidence) / self.temperature, dim=-1)
        choice = TeacherChoice(teacher_scores(evidence, "entropy"), w, margins(w))
        m = choice.m if self.reweight == "margin" else torch.ones_like(choice.m)
        columns = {"q": golden_supervision(self._answers(evidence), w, evidence.label_space), "m": m}
        T = self.teacher_temperature
        return Supervision(columns, GoldenKL(T), choice, T, self.head)

    def scores(self, evidence: Evidence) -> Tensor:
        """How well each text fits among each teacher's labels: [n, N], in units of log density."""
        features = _features(evidence)
        certainty = _CERTAINTY * teacher_scores(evidence, "entropy")
        trust = _trust(evidence.whole)
        if not trust:
            return certainty
        mixture = evidence.whole.once(self, lambda: self._learnt(evidence.whole))
        return (1 - trust) * certainty + trust * mixture.scores_of(features)

    def _learnt(self, evidence: Evidence) -> Mixture:
        """The clusters of the corpus, or of a sample of it that depends on its size and the seed alone."""
        rows = _reference(evidence)
        d = max(len(evidence.label_space), _FEWEST_DIRECTIONS)
        spaces, z = [], []
        for features in _features(evidence):
            of_sample = _gathered(features, rows, evidence.on_block)
            spaces.append(FeatureSpace.of(of_sample, d))
            z.append(spaces[-1](of_sample))
        sample = Evidence(
            evidence.label_space, [replace(o, features=None).rows(rows) for o in evidence.outputs]
        )
        p = self._answers(sample)
        fitting = Fitting(sample.label_space, spaces, z, p, self.temperature, evidence.on_block)
        start = fitting.belonging(_CERTAINTY * teacher_scores(sample, "entropy"))
        return find_lost_labels(fitting, fitting.rounds(start, _ROUNDS)).mixture

    def _answers(self, evidence: Evidence) -> list[Tensor]:
        return [torch.softmax(o.logits / self.teacher_temperature, dim=-1) for o in evidence.outputs]


def _trust(evidence: Evidence) -> float:
    texts_per_label = len(evidence) / len(evidence.label_space)
    return min(max((texts_per_label - _FEW) / (_ENOUGH - _FEW), 0.0), 1.0)


def _reference(evidence: Evidence) -> slice | Tensor:
    n = len(evidence)
    if n <= REFERENCE_TEXTS:
        return slice(None)
    generator = torch.Generator().manual_seed(derive_seed(evidence.seed, "reference", n))
    return torch.randperm(n, generator=generator)[:REFERENCE_TEXTS].sort().values


def _gathered(features: Tensor, rows: slice | Tensor, on_block: Callable[[], None]) -> Tensor:
    """Some rows. Each that lies in a file brings its neighbours along, so memory is given back under way."""
    if isinstance(rows, slice):
        return features[rows]
    parts = []
    for part in torch.split(rows, _ROWS_AT_ONCE):
        on_block()
        parts.append(features[part])
    return torch.cat(parts)


def _features(evidence: Evidence) -> Sequence[Tensor]:
    features = [outputs.features for outputs in evidence.outputs if outputs.features is not None]
    if len(features) != len(evidence.outputs):
        raise ValueError("the evidence has no features; allowed: teachers scored with features=True")
    return features
