import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny_models import TEXTS
from worker.muka.dropout import POOL, MaskPool, seeded_dropout
from worker.muka.scoring import ShardSampler, stacks
from worker.muka.uncertainty import enable_dropout

CPU = torch.device("cpu")


class TestMaskPool:
    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.013])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_values_are_bernoulli_draws_scaled_to_a_mean_of_one(self, rate, dtype):
        mask = MaskPool(1, rate, dtype).take(2_000_000)
        assert mask.dtype == dtype
        zeros = (mask == 0).double().mean().item()
        five_sigma = 5 * (rate * (1 - rate) / len(mask)) ** 0.5
        assert zeros == pytest.approx(rate, abs=five_sigma + 2**-16)
        kept = mask[mask != 0].unique()
        assert kept.tolist() == pytest.approx(
            [1 / (1 - rate)], rel=2**-8 if dtype == torch.bfloat16 else 1e-4
        )

    def test_neighbours_and_later_masks_are_independent(self):
        pool = MaskPool(1, 0.1, torch.float32)
        one, other = (pool.take(1_000_000) - 1 for _ in range(2))
        variance = one.square().mean()
        for a, b in ((one, other), (one[1:], one[:-1]), (one[384:], one[:-384]), (one[4:], one[:-4])):
            assert abs((a * b).mean() / variance) < 5e-3

    def test_seed_rate_and_order_of_requests_decide_everything(self):
        def drawn(seed: int) -> torch.Tensor:
            pool = MaskPool(seed, 0.1, torch.float32)
            return torch.cat([pool.take(n) for n in (5, 1000, 7)])

        assert torch.equal(drawn(1), drawn(1))
        assert not torch.equal(drawn(1), drawn(2))

    def test_a_used_pool_gives_windows_at_other_places_and_still_the_same_for_a_seed(self):
        def late(seed: int) -> list[torch.Tensor]:
            pool = MaskPool(seed, 0.1, torch.bfloat16)
            pool.take(POOL)
            return [pool.take(10_000) for _ in range(4)]

        masks = late(1)
        assert all(torch.equal(one, other) for one, other in zip(masks, late(1), strict=True))
        assert not any(torch.equal(masks[0], other) for other in masks[1:])
        for mask in masks:
            assert (mask == 0).float().mean().item() == pytest.approx(0.1, abs=0.015)

    def test_more_than_the_pool_holds_is_drawn_anew(self):
        pool = MaskPool(1, 0.1, torch.bfloat16)
        pool.take(POOL)
        assert len(pool.take(POOL + 1)) == POOL + 1


class TestSeededDropout:
    @pytest.fixture
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Sequential(nn.AlphaDropout(0.3))).eval()

    def test_only_dropout_that_is_on_drops(self, model):
        x = torch.ones(4, 8)
        with torch.no_grad(), seeded_dropout(model, 1, CPU):
            assert torch.equal(model(x), model[0](x))
        with torch.no_grad(), enable_dropout(model), seeded_dropout(model, 1, CPU):
            assert not torch.equal(model(x), model[0](x))

    def test_other_classes_of_dropout_follow_the_seed_too(self, model):
        def answer(seed: int) -> torch.Tensor:
            with torch.no_grad(), enable_dropout(model), seeded_dropout(model, seed, CPU):
                return model(torch.ones(4, 8))

        assert torch.equal(answer(1), answer(1))
        assert not torch.equal(answer(1), answer(2))

    def test_gradients_pass_through_the_mask(self):
        layer, x = nn.Dropout(0.5).train(), torch.ones(1000, requires_grad=True)
        with seeded_dropout(layer, 1, CPU):
            layer(x).sum().backward()
        assert set(x.grad.tolist()) == {0.0, 2.0}

    def test_the_model_is_left_as_it_was_also_after_an_error(self, model):
        with pytest.raises(RuntimeError), enable_dropout(model), seeded_dropout(model, 1, CPU):
            raise RuntimeError
        assert not any("forward" in vars(module) for module in model.modules())
        assert not any(module.training for module in model.modules())


class TestPassesOfATeacher:
    def test_their_mean_approaches_that_of_torch_dropout(self, bank):
        sampler = ShardSampler(bank, TEXTS, seed=1, shard=0, max_length=32)
        ours = sampler.dropout_passes(0, 512, np.arange(len(TEXTS)))
        batch = bank.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
        torch.manual_seed(1)
        with torch.no_grad(), enable_dropout(bank.model):
            theirs = torch.stack([bank.model(**batch).logits.softmax(-1) for _ in range(512)], 1)
        error = (ours.var(1) + theirs.var(1)).sqrt() / 512**0.5
        assert ((ours.mean(1) - theirs.mean(1)).abs() < 5 * error).all()
        torch.testing.assert_close(ours.std(1), theirs.std(1), rtol=0.25, atol=0.01)

    def test_passes_of_a_text_differ_and_do_not_follow_one_another(self, bank):
        sampler = ShardSampler(bank, TEXTS, seed=1, shard=0, max_length=32)
        passes = sampler.dropout_passes(0, 256, np.arange(len(TEXTS)))[..., 0]
        centred = passes - passes.mean(1, keepdim=True)
        correlation = (centred[:, 1:] * centred[:, :-1]).mean() / centred.square().mean()
        assert len(passes[0].unique()) > 200
        assert abs(correlation) < 0.1


def test_stacks_cover_every_pass_once():
    assert list(stacks(16, CPU)) == [(0, 2), (2, 2), (4, 4), (8, 4), (12, 4)]
    assert list(stacks(16, CPU, adaptive=True)) == list(stacks(16, CPU))
    assert list(stacks(5, CPU)) == [(0, 2), (2, 2), (4, 1)]
    assert list(stacks(1, CPU)) == [(0, 1)]
    assert list(stacks(0, CPU)) == []
    gpu = torch.device("cuda")
    assert list(stacks(20, gpu)) == [(0, 16), (16, 4)]
    assert list(stacks(20, gpu, adaptive=True)) == [(0, 2), (2, 2), (4, 4), (8, 8), (16, 4)]
