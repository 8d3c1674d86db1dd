import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.tiny_models import TEXTS
from worker.muka.ahead import TokenisedAhead, Upcoming
from worker.muka.batching import TokenisedTexts, tokenise
from worker.muka.teacher import Teacher


class Shelf:
    """Reads texts, and knows in which threads it was asked to."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.threads: list[str] = []

    def __call__(self) -> Sequence[str]:
        self.threads.append(threading.current_thread().name)
        return self.texts


@pytest.fixture
def on_gpu(monkeypatch):
    """Where the model is decides, and there is none here; tokenising takes no GPU."""
    monkeypatch.setattr(Teacher, "device", property(lambda _: torch.device("cuda")))
    monkeypatch.setattr(Teacher, "has_dropout", True)


def same(one: TokenisedTexts, other: TokenisedTexts) -> bool:
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.offsets, other.offsets)


def test_the_next_shard_is_made_in_another_thread_and_taken_from_there(bank, on_gpu):
    ahead, shelf = TokenisedAhead(8), Shelf(TEXTS[3:])
    first = ahead.take(bank, 0, TEXTS[:3], Upcoming(1, shelf))
    second = ahead.take(bank, 1, ["never looked at"])
    assert same(first, tokenise(bank.tokenizer, TEXTS[:3], 8))
    assert same(second, tokenise(bank.tokenizer, TEXTS[3:], 8))
    assert len(shelf.threads) == 1
    assert shelf.threads[0].startswith("tokenise")


def test_another_shard_than_expected_is_made_at_once(bank, on_gpu):
    ahead = TokenisedAhead(64)
    ahead.take(bank, 0, TEXTS[:3], Upcoming(1, Shelf(TEXTS[3:])))
    assert same(ahead.take(bank, 7, TEXTS[:2]), tokenise(bank.tokenizer, TEXTS[:2], 64))


def test_teachers_do_not_take_each_others_tokens(bank, travel, on_gpu):
    ahead = TokenisedAhead(64)
    for teacher in (bank, travel):
        ahead.take(teacher, 0, TEXTS[:3], Upcoming(1, Shelf(TEXTS[3:])))
    for teacher in (bank, travel):
        assert same(ahead.take(teacher, 1, TEXTS[3:]), tokenise(teacher.tokenizer, TEXTS[3:], 64))


def test_texts_that_cannot_be_read_ahead_fail_where_they_are_taken(bank, on_gpu):
    ahead = TokenisedAhead(64)

    def broken() -> Sequence[str]:
        raise OSError("the disk is gone")

    ahead.take(bank, 0, TEXTS, Upcoming(1, broken))
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.take(bank, 1, TEXTS)


def test_the_tokenizer_is_not_asked_twice_at_once(bank, on_gpu, monkeypatch):
    """Whether a teacher can be sampled is found out with its tokenizer, at another length."""
    order: list[str] = []
    has_dropout = property(lambda _: order.append("can it be sampled?"))
    monkeypatch.setattr(Teacher, "has_dropout", has_dropout)

    def texts() -> Sequence[str]:
        order.append("the next texts")
        return TEXTS

    ahead = TokenisedAhead(64)
    ahead.take(bank, 0, TEXTS[:3], Upcoming(1, texts))
    ahead.take(bank, 1, TEXTS)
    assert order[:2] == ["can it be sampled?", "the next texts"]


def test_a_shard_that_could_not_be_read_ahead_is_no_matter_where_another_is_taken(bank, on_gpu):
    ahead = TokenisedAhead(64)
    ahead.take(bank, 0, TEXTS, Upcoming(1, lambda: 1 / 0))
    assert same(ahead.take(bank, 2, TEXTS[:2]), tokenise(bank.tokenizer, TEXTS[:2], 64))


def test_on_a_cpu_nothing_is_made_ahead(bank):
    ahead, shelf = TokenisedAhead(64), Shelf(TEXTS[3:])
    ahead.take(bank, 0, TEXTS[:3], Upcoming(1, shelf))
    assert same(ahead.take(bank, 1, TEXTS[3:]), tokenise(bank.tokenizer, TEXTS[3:], 64))
    assert not shelf.threads
