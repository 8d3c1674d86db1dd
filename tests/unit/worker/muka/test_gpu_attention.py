"""What can be seen without a GPU; `tests/gpu` has the rest."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.tiny_models import TEXTS, make_teacher
from worker.muka import create_student
from worker.muka import gpu_attention as gpu_attention_module
from worker.muka.batching import tokenise
from worker.muka.gpu_attention import fused_mpnet, gpu_attention
from worker.muka.teacher import Teacher
from worker.muka.uncertainty import enable_dropout

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("mpnet"), ["a", "b", "c"], "mpnet")


@pytest.mark.parametrize("rows", [[0, 1], [9, 0, 11], [11]], ids=["one length", "padded", "alone"])
def test_a_fused_mpnet_answers_as_transformers_does(folder, rows, monkeypatch):
    teacher = Teacher.load(folder, precision="float32")
    batch = tokenise(teacher.tokenizer, TEXTS, 32).collate(np.array(rows), CPU)
    calls: list[None] = []

    def spy(*arguments, **others) -> torch.Tensor:
        calls.append(None)
        return scaled_dot_product_attention(*arguments, **others)

    monkeypatch.setattr(gpu_attention_module, "scaled_dot_product_attention", spy)
    with torch.inference_mode():
        expected = teacher.model(**batch).logits
        with fused_mpnet(teacher.model):
            answer = teacher.model(**batch).logits
        fused_calls = [len(calls)]
        again = teacher.model(**batch).logits
        fused_calls.append(len(calls) - fused_calls[0])
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-4)
    assert fused_calls == [2, 0]
    assert torch.equal(again, expected)


def test_a_fused_mpnet_learns_as_transformers_does(folder):
    student = create_student(folder, ["a", "b", "c"], seed=1)
    batch = tokenise(student.tokenizer, TEXTS, 32).collate(np.array([9, 0, 11]), CPU, width=16)

    def gradients() -> dict[str, torch.Tensor]:
        student.model.zero_grad(set_to_none=True)
        student.model(**batch).logits.square().sum().backward()
        return {name: p.grad for name, p in student.model.named_parameters() if p.grad is not None}

    expected = gradients()
    with fused_mpnet(student.model):
        found = gradients()
    assert "mpnet.encoder.relative_attention_bias.weight" in found
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-3, msg=name)


def test_a_pass_that_died_under_way_leaves_nothing_to_the_next(folder):
    """As one does that lacks memory: the next, smaller batch has another bias."""
    teacher = Teacher.load(folder, precision="float32")
    texts = tokenise(teacher.tokenizer, TEXTS, 32)
    large, small = (texts.collate(np.array(rows), CPU) for rows in ([10, 9, 0], [11, 9]))
    second = teacher.model.base_model.encoder.layer[1]
    with torch.inference_mode():
        expected = teacher.model(**small).logits
        with fused_mpnet(teacher.model):
            hook = second.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
            with pytest.raises(torch.OutOfMemoryError):
                teacher.model(**large)
            hook.remove()
            answer = teacher.model(**small).logits
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-4)


def test_its_dropout_follows_the_layers_mode(folder):
    teacher = Teacher.load(folder, precision="float32")
    batch = tokenise(teacher.tokenizer, TEXTS, 32).collate(np.array([0]), CPU)
    attention = [layer.attention.attn.dropout for layer in teacher.model.base_model.encoder.layer]
    others = [m for m in teacher.model.modules() if type(m) is torch.nn.Dropout and m not in attention]
    for layer in others:
        layer.p = 0.0
    with torch.inference_mode(), fused_mpnet(teacher.model):
        still = [teacher.model(**batch).logits for _ in range(2)]
        with enable_dropout(teacher.model):
            moving = [teacher.model(**batch).logits for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*moving)


def test_other_models_keep_what_they_have(bank):
    batch = tokenise(bank.tokenizer, TEXTS, 32).collate(np.array([9, 0]), CPU)
    with torch.inference_mode():
        expected = bank.model(**batch).logits
        with gpu_attention(bank.model):
            assert bank.model.config._attn_implementation == "sdpa"
            torch.testing.assert_close(bank.model(**batch).logits, expected)
