import numpy as np
import pytest
import torch

from tests.tiny_models import TEXTS, make_teacher
from worker.muka.attention import even_attention
from worker.muka.batching import tokenise
from worker.muka.teacher import Teacher

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["bert", "roberta", "electra", "albert", "distilbert", "modernbert"])
def teacher(request, tmp_path_factory) -> Teacher:
    folder = make_teacher(tmp_path_factory.mktemp(request.param), ["a", "b", "c"], request.param)
    return Teacher.load(folder, precision="bfloat16")


@pytest.mark.parametrize("rows", [[0, 1], [9, 0, 11], [11]], ids=["one length", "padded", "alone"])
def test_added_keys_change_nothing_but_rounding(teacher, rows):
    batch = tokenise(teacher.tokenizer, TEXTS, 32).collate(np.array(rows), CPU)
    assert batch["input_ids"].shape[1] % 16
    with torch.inference_mode():
        plain = teacher.model(**batch).logits.float()
        with even_attention(teacher.model):
            even = teacher.model(**batch).logits.float()
    torch.testing.assert_close(even, plain, atol=0.05, rtol=0.05)


def test_the_kernel_meets_multiples_of_16_keys_within_the_block_only(teacher, monkeypatch):
    seen = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, *arguments, **others):
        seen.append((query.shape[-2], key.shape[-2]))
        return kernel(query, key, *arguments, **others)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    batch = tokenise(teacher.tokenizer, TEXTS, 32).collate(np.array([9]), CPU)
    length = batch["input_ids"].shape[1]
    with torch.inference_mode():
        with even_attention(teacher.model):
            teacher.model(**batch)
        assert set(seen) == {(length, 16)}
        seen.clear()
        teacher.model(**batch)
        assert set(seen) == {(length, length)}


def test_float32_models_keep_their_attention(bank):
    with even_attention(bank.model):
        assert bank.model.config._attn_implementation == "sdpa"
