import pytest
import torch

from worker.muka.precision import autocast, bfloat16_speedup, is_bfloat16_fast, resolve

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_named_precision_is_taken_at_its_word(name, dtype):
    assert resolve(name, CPU) == dtype


def test_auto_is_bfloat16_exactly_where_it_was_measured_to_be_faster():
    assert (resolve("auto", CPU) == torch.bfloat16) == is_bfloat16_fast(CPU) == (bfloat16_speedup(CPU) >= 1.2)


def test_the_host_is_measured_once_a_process():
    assert bfloat16_speedup(CPU) == bfloat16_speedup(torch.device("cpu")) > 0


def test_autocast_changes_matrix_products_for_bfloat16_only():
    for dtype in (torch.float32, torch.bfloat16):
        with autocast(dtype, CPU):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
