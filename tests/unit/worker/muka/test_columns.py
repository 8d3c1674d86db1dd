"""Tensors that lie on disk: the same values, no file left, and a full disk is told before it kills."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.resident_memory import resident
from tests.tiny_models import TEXTS, make_tokenizer
from worker.muka.batching import tokenise
from worker.muka.columns import Columns, filled, joined, spans


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.bool])
def test_columns_hold_what_was_put_in_whatever_the_order(tmp_path, on_disk, dtype):
    values = torch.arange(30).reshape(10, 3).to(dtype)
    columns = Columns(10, tmp_path if on_disk else None)
    for span in reversed(list(spans(10, 4))):
        columns.put(span.start, {"numbers": values[span], "first": values[span, 0]})
    assert list(columns) == ["numbers", "first"]
    assert torch.equal(columns["numbers"], values)
    assert torch.equal(columns["first"], values[:, 0])
    assert list(tmp_path.iterdir()) == []


def test_columns_are_filled_span_by_span(tmp_path):
    seen = []

    def make(span: slice) -> dict[str, torch.Tensor]:
        seen.append(span)
        return {"row": torch.arange(span.start, span.stop)}

    assert filled(5, make, tmp_path, size=2)["row"].tolist() == [0, 1, 2, 3, 4]
    assert seen == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_a_part_of_a_column_shares_its_memory(tmp_path):
    column = filled(4, lambda span: {"row": torch.zeros(span.stop - span.start)}, tmp_path)["row"]
    column[1:3] += 1
    assert column.tolist() == [0, 1, 1, 0]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="macOS has no posix_fallocate")
def test_a_disk_that_is_too_small_is_an_error_at_once_and_no_signal_later(tmp_path):
    """A full disk under a mapping kills the process with SIGBUS."""
    with pytest.raises(OSError, match=r".") as caught:
        Columns(1 << 50, tmp_path).put(0, {"huge": torch.zeros(1)})
    assert caught.value.errno in {errno.ENOSPC, errno.EFBIG}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_is_let_go_is_still_there(tmp_path, on_disk):
    values = torch.arange(30_000).reshape(10_000, 3)
    columns = Columns(10_000, tmp_path if on_disk else None)
    for span in spans(10_000, 1_000):
        columns.put(span.start, {"numbers": values[span], "first": values[span, 0]})
        columns.let_go(span)
    assert torch.equal(columns["numbers"], values)
    columns.let_go()
    assert torch.equal(columns["numbers"], values)
    assert torch.equal(columns["first"], values[:, 0])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it")
def test_what_is_let_go_is_not_in_the_memory_of_this_process(tmp_path):
    columns = Columns(16, tmp_path)
    columns.put(0, {"large": torch.ones(16, 1 << 20)})  # 64 MiB
    held = resident()
    columns.let_go(slice(4, 12))
    assert 28 << 20 < held - resident() < 36 << 20
    columns.let_go()
    assert held - resident() > 60 << 20
    assert columns["large"].sum() == 16 << 20
    assert held - resident() < 4 << 20


@pytest.mark.parametrize("on_disk", [True, False])
def test_joined_arrays_are_one(tmp_path: Path, on_disk):
    parts = [np.arange(n, dtype=np.int32) for n in (3, 1, 2)]
    assert joined(iter(parts), tmp_path if on_disk else None).tolist() == [0, 1, 2, 0, 0, 1]
    assert list(tmp_path.iterdir()) == []


def test_token_ids_on_disk_are_those_in_memory(tmp_path):
    tokenizer = make_tokenizer()
    here, there = tokenise(tokenizer, TEXTS, 16), tokenise(tokenizer, TEXTS, 16, tmp_path)
    assert isinstance(there.ids, np.memmap)
    assert there.ids.tolist() == here.ids.tolist()
    rows, cpu = np.array([3, 0, 9]), torch.device("cpu")
    one, other = here.collate(rows, cpu), there.collate(rows, cpu)
    assert all(torch.equal(one[name], other[name]) for name in one)
