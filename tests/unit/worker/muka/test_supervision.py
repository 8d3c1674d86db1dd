import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.muka.label_space import LabelSpace
from worker.muka.supervision import golden_supervision, integration_weights, margins


class TestIntegrationWeights:
    def test_soft_is_a_softmax_of_the_scores_over_tau(self):
        w = integration_weights(torch.tensor([[0.9, 0.5]]), "soft", 0.2)
        first = math.exp(4.5) / (math.exp(4.5) + math.exp(2.5))
        torch.testing.assert_close(w, torch.tensor([[first, 1 - first]]))

    def test_hard_takes_the_best_teacher_alone(self):
        assert integration_weights(torch.tensor([[0.1, 0.9, 0.5]]), "hard", 0.2).tolist() == [[0.0, 1.0, 0.0]]

    def test_soft_tends_to_hard_as_tau_goes_to_zero(self):
        u = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(integration_weights(u, "soft", 1e-9), integration_weights(u, "hard", 1.0))

    @pytest.mark.parametrize("integration", ["soft", "hard"])
    def test_identical_teachers_share_evenly(self, integration):
        w = integration_weights(torch.full((2, 4), 0.7), integration, 0.2)
        torch.testing.assert_close(w, torch.full((2, 4), 0.25))


class TestMargins:
    def test_best_minus_second_best_plus_a_millionth(self):
        m = margins(torch.tensor([[0.2, 0.9, 0.6], [1.0, 0.0, 0.0]]))
        torch.testing.assert_close(m, torch.tensor([0.3 + 1e-6, 1.0 + 1e-6]))

    def test_identical_teachers_leave_almost_nothing(self):
        assert margins(torch.full((3, 2), 0.7)).tolist() == pytest.approx([1e-6] * 3)


class TestGoldenSupervision:
    def test_shared_labels_add_up(self):
        space = LabelSpace.union([["a", "b"], ["b", "c"]])
        p = [torch.tensor([[0.6, 0.4]]), torch.tensor([[0.5, 0.5]])]
        q = golden_supervision(p, torch.tensor([[0.25, 0.75]]), space)
        torch.testing.assert_close(q, torch.tensor([[0.15, 0.1 + 0.375, 0.375]]))

    def test_teachers_of_the_same_labels_are_an_ordinary_weighted_ensemble(self):
        space = LabelSpace.union([["a", "b"], ["a", "b"]])
        p = [torch.tensor([[0.6, 0.4]]), torch.tensor([[0.2, 0.8]])]
        q = golden_supervision(p, torch.tensor([[0.5, 0.5]]), space)
        torch.testing.assert_close(q, torch.tensor([[0.4, 0.6]]))

    def test_permuting_the_teachers_permutes_nothing_but_the_label_order(self):
        names = [["a", "b"], ["b", "c", "d"], ["e", "a"]]
        generator = torch.Generator().manual_seed(0)
        p = [torch.softmax(torch.randn(5, len(n), generator=generator), -1) for n in names]
        w = integration_weights(torch.rand(5, 3, generator=generator), "soft", 0.2)
        order = [2, 0, 1]
        space, permuted = LabelSpace.union(names), LabelSpace.union([names[i] for i in order])
        q = golden_supervision(p, w, space)
        other = golden_supervision([p[i] for i in order], w[:, order], permuted)
        columns = [permuted.label2id[label] for label in space.labels]
        torch.testing.assert_close(other[:, columns], q)


_names = st.sampled_from(["a", "b", "c", "d", "e", None])
_teacher = st.lists(_names, min_size=2, max_size=7).filter(lambda names: len(set(names) - {None}) >= 2)


@given(
    teachers=st.lists(_teacher, min_size=1, max_size=4), seed=st.integers(0, 2**31), scale=st.floats(0, 200)
)
def test_golden_supervision_sums_to_one_for_any_label_spaces(teachers, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    p = [torch.softmax(scale * torch.randn(3, len(names), generator=generator), -1) for names in teachers]
    w = integration_weights(torch.rand(3, len(teachers), generator=generator), "soft", 0.2)
    q = golden_supervision(p, w, LabelSpace.union(teachers))
    torch.testing.assert_close(q.sum(-1), torch.ones(3))
    assert q.min() >= 0
