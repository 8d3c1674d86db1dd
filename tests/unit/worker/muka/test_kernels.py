import pytest
import torch

from tests.tiny_models import ARCHITECTURES, TEXTS, make_teacher
from worker.muka.kernels import fused_linear
from worker.muka.teacher import Teacher


@pytest.fixture(scope="module", params=ARCHITECTURES)
def teacher(request, tmp_path_factory) -> Teacher:
    folder = make_teacher(tmp_path_factory.mktemp(request.param), ["a", "b", "c"], request.param)
    return Teacher.load(folder, precision="bfloat16")


def test_every_architecture_answers_within_the_rounding_of_bfloat16(teacher):
    batch = teacher.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    exact = Teacher.load(teacher.folder, precision="float32").model
    with torch.inference_mode():
        expected, plain = exact(**batch).logits, teacher.model(**batch).logits.float()
        with fused_linear(teacher.model):
            fused = teacher.model(**batch).logits.float()
    assert (fused - expected).norm() <= 1.5 * (plain - expected).norm() + 0.02 * expected.norm()


def test_layers_are_replaced_within_the_block_only(teacher):
    with fused_linear(teacher.model):
        assert any("forward" in vars(module) for module in teacher.model.modules())
    assert not any("forward" in vars(module) for module in teacher.model.modules())


def test_float32_models_are_left_alone(bank):
    with fused_linear(bank.model):
        assert not any("forward" in vars(module) for module in bank.model.modules())
