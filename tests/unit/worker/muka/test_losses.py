import math

import pytest
import torch
from torch.nn import functional

from worker.muka.losses import kl_to_golden, weighted_kl


def test_a_hand_computed_value():
    s = torch.tensor([[0.0, math.log(3.0)]])  # the student says 1/4, 3/4
    q = torch.tensor([[0.5, 0.5]])
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert weighted_kl(s, q, torch.tensor([0.3])).item() == pytest.approx(0.3 * kl, rel=1e-5)


def test_it_is_the_mean_over_texts_of_margin_times_divergence():
    generator = torch.Generator().manual_seed(0)
    s, q = torch.randn(6, 4, generator=generator), torch.rand(6, 4, generator=generator).softmax(-1)
    m = torch.rand(6, generator=generator)
    kl = functional.kl_div((s / 2).log_softmax(-1), q, reduction="none").sum(-1)
    torch.testing.assert_close(weighted_kl(s, q, m, 2.0), (m * kl).mean())


def test_a_student_that_says_what_it_is_taught_loses_nothing():
    s = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kl_to_golden(s, s.softmax(-1)), torch.zeros(3), atol=1e-6, rtol=0)


def test_golden_probabilities_of_exactly_zero_and_one_give_finite_loss_and_gradient():
    s = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    loss = weighted_kl(s, torch.tensor([[0.0, 1.0, 0.0]]), torch.ones(1))
    loss.backward()
    assert loss.item() == pytest.approx(400.0)
    assert s.grad.isfinite().all()


def test_it_is_computed_in_float32_whatever_the_logits_are():
    s = torch.tensor([[1.0, 2.0, 3.0]])
    q, m = torch.tensor([[0.2, 0.3, 0.5]]), torch.ones(1)
    loss = weighted_kl(s.bfloat16(), q, m)
    assert loss.dtype == torch.float32
    assert loss == weighted_kl(s, q, m)
