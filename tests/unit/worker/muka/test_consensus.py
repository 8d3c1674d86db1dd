"""Consensus: company in a teacher's features, and the neighbours' voices, on corpora made for it."""

import math

import pytest
import torch
from torch import Tensor

from tests.unit.worker.muka.evidence import outputs, permuted
from worker.muka import neighbours as neighbours_module
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, get_method
from worker.muka.methods.consensus import Consensus, familiarity
from worker.muka.neighbours import Neighbours, Space, nearest, reference_rows

PER_CLASS = 30
OWNER = torch.arange(4).repeat_interleave(PER_CLASS) // 2


def corpus(*, confident_stranger: bool = True, seed: int = 0) -> Evidence:
    """Two teachers of two classes each: each draws its own texts together and scatters the other's.

    The first is sure of everything, so that certainty alone gives it every text.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(4).repeat_interleave(PER_CLASS)
    answers = []
    for i in range(2):
        centres = 4 * torch.nn.functional.one_hot(kind % 2, 16).float()
        tight = centres + 0.3 * torch.randn(len(kind), 16, generator=generator)
        scattered = 4 * torch.randn(len(kind), 16, generator=generator)
        features = torch.where((i == OWNER)[:, None], tight, scattered)
        sharpness = 6.0 if i == 0 and confident_stranger else 2.0
        logits = sharpness * torch.nn.functional.one_hot(kind % 2, 2).float()
        answers.append(outputs(logits, features=features))
    return Evidence(LabelSpace.union([["a", "b"], ["c", "d"]]), answers)


def chosen(w: Tensor) -> Tensor:
    return w.argmax(-1)


def test_a_teacher_that_is_sure_of_everything_gets_only_the_texts_that_it_knows():
    evidence = corpus()
    by_certainty = get_method("muka", mc_samples=0).supervise(evidence).choice
    assert (chosen(by_certainty.w) == 0).all(), "the case is made so that certainty alone is wrong"
    choice = Consensus().supervise(evidence).choice
    assert (chosen(choice.w) == OWNER).float().mean() > 0.95


def test_without_company_and_neighbours_the_weights_are_those_of_certainty():
    evidence = corpus()
    settings = {"familiarity": 0.0, "neighbours": 0, "temperature": 0.2}
    plain = get_method("muka", mc_samples=0, reweight="none").supervise(evidence)
    made = Consensus(**settings).supervise(evidence)
    torch.testing.assert_close(made.columns["q"], plain.columns["q"])


def test_a_corpus_with_few_texts_a_label_has_no_neighbourhoods_to_ask():
    few = corpus().rows(slice(0, 12))  # three a label
    few = Evidence(few.label_space, few.outputs)
    w = Consensus(temperature=0.2).supervise(few).choice.w
    torch.testing.assert_close(w, get_method("muka", mc_samples=0).supervise(few).choice.w)


def test_a_text_that_its_teacher_is_unsure_of_is_outvoted_by_its_neighbours():
    evidence = corpus()
    evidence.outputs[0].mc_probabilities[0] = 0.5  # a text of the first teacher, which is now in doubt
    doubtful = Consensus(neighbours=0, familiarity=0.0).supervise(evidence).choice.w[0, 0]
    voted = Consensus(familiarity=0.0).supervise(evidence).choice.w[0, 0]
    assert doubtful < 0.5 < voted


def test_margin_weighting_counts_a_text_by_how_decided_its_teacher_is():
    evidence = corpus()
    made = Consensus(reweight="margin").supervise(evidence)
    best, second = made.choice.w.sort(-1, descending=True).values.unbind(-1)
    torch.testing.assert_close(made.columns["m"], best - second + 1e-6)
    assert (Consensus().supervise(evidence).columns["m"] == 1).all()


def test_the_order_of_the_teachers_changes_nothing_but_the_labels_order():
    evidence = corpus()
    there, back = Consensus().supervise(evidence), Consensus().supervise(permuted(evidence, [1, 0]))
    torch.testing.assert_close(there.choice.w, back.choice.w.flip(-1))


def test_evidence_without_features_is_refused():
    evidence = corpus()
    bare = Evidence(evidence.label_space, [outputs(each.logits) for each in evidence.outputs])
    with pytest.raises(ValueError, match="features=True"):
        Consensus().supervise(bare)


def test_familiarity_is_the_mean_log_closeness_of_the_companions():
    companions = Neighbours(torch.tensor([[1, 2]]), torch.tensor([[1.0, 0.5]]))
    expected = -(math.log(0.03) + math.log(0.53)) / 2
    assert familiarity(companions).item() == pytest.approx(expected)


class TestNeighbours:
    def test_they_are_the_texts_with_the_largest_cosines_and_never_the_text_itself(self):
        space = Space.of(torch.randn(50, 5, generator=torch.Generator().manual_seed(0)))
        found = nearest([space], 3, torch.arange(50))
        every = space[:]
        cosines = every @ every.T
        for row in range(50):
            others = [other for other in range(50) if other != row]
            best = sorted(others, key=lambda other, row=row: -cosines[row, other])[:3]
            assert found.rows[row].tolist() == best

    def test_several_spaces_are_asked_together(self):
        generator = torch.Generator().manual_seed(1)
        spaces = [Space.of(torch.randn(40, width, generator=generator)) for width in (3, 7)]
        both = nearest(spaces, 5, torch.arange(40))
        one, other = (space[:] for space in spaces)
        mean = (one @ one.T + other @ other.T) / 2
        torch.testing.assert_close(both.cosines, mean.gather(1, both.rows))

    def test_a_large_corpus_is_compared_with_a_sample_that_the_seed_decides(self, monkeypatch):
        monkeypatch.setattr(neighbours_module, "REFERENCE_TEXTS", 20)
        reference = reference_rows(100, seed=1)
        assert len(set(reference.tolist())) == 20
        assert torch.equal(reference, reference_rows(100, seed=1))
        assert not torch.equal(reference, reference_rows(100, seed=2))
        space = Space.of(torch.randn(100, 5, generator=torch.Generator().manual_seed(0)))
        found = nearest([space], 4, reference)
        assert set(found.rows.flatten().tolist()) <= set(reference.tolist())
        assert all(row not in of_row for row, of_row in enumerate(found.rows.tolist()))

    def test_a_mean_over_neighbours_counts_them_by_their_cosines(self):
        asked = Neighbours(torch.tensor([[1, 2]]), torch.tensor([[0.75, 0.25]]))
        values = torch.tensor([[9.0], [1.0], [5.0]])
        torch.testing.assert_close(asked.mean(values), torch.tensor([[2.0]]))
