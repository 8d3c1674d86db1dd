import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.tiny_models import TEXTS, make_tokenizer
from worker.muka.batching import Rows, epoch_batches, tokenise
from worker.muka.errors import CorpusEmptyError, OutOfMemoryError_
from worker.muka.memory import TokenBudget, in_token_batches, is_out_of_memory

CPU = torch.device("cpu")
LENGTHS = np.array([3, 9, 1, 4, 9, 2, 7])


def token_batches(lengths: np.ndarray, tokens: int) -> list[Rows]:
    return [rows for rows, _ in in_token_batches(len, lengths, TokenBudget(tokens))]


class TestTokenise:
    def test_texts_become_flat_int32_ids_and_offsets(self):
        tokenizer = make_tokenizer()
        texts = tokenise(tokenizer, TEXTS, 32)
        assert texts.ids.dtype == np.int32
        assert len(texts) == len(TEXTS)
        assert texts.ids[texts.offsets[3] : texts.offsets[4]].tolist() == tokenizer(TEXTS[3])["input_ids"]

    def test_long_texts_are_cut(self):
        assert tokenise(make_tokenizer(), ["hello " * 100], 8).lengths.tolist() == [8]

    def test_an_empty_text_is_still_a_sequence(self):
        tokenizer = make_tokenizer()
        assert tokenise(tokenizer, [""], 8).lengths.tolist() == [2]
        tokenizer.backend_tokenizer.post_processor = None
        assert tokenise(tokenizer, [""], 8).lengths.tolist() == [1]

    def test_an_empty_corpus_is_refused(self):
        with pytest.raises(CorpusEmptyError) as caught:
            tokenise(make_tokenizer(), [], 8)
        assert caught.value.code == "corpus_empty"

    def test_a_batch_is_padded_to_its_longest_text_as_the_tokenizer_would(self):
        tokenizer = make_tokenizer()
        rows = np.array([9, 0, 10])
        batch = tokenise(tokenizer, TEXTS, 32).collate(rows, CPU)
        expected = tokenizer([TEXTS[row] for row in rows], padding=True, return_tensors="pt")
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["attention_mask"], expected["attention_mask"])

    def test_a_tokenizer_that_pads_left_is_obeyed(self):
        tokenizer = make_tokenizer()
        tokenizer.padding_side = "left"
        batch = tokenise(tokenizer, TEXTS, 32).collate(np.array([9, 0, 10]), CPU)
        expected = tokenizer([TEXTS[row] for row in (9, 0, 10)], padding=True, return_tensors="pt")
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["attention_mask"], expected["attention_mask"])

    def test_texts_of_one_length_need_no_mask(self):
        tokenizer = make_tokenizer()
        batch = tokenise(tokenizer, TEXTS[:2], 32).collate(np.array([0, 1]), CPU)
        assert batch.keys() == {"input_ids"}
        expected = tokenizer(list(TEXTS[:2]), padding=True, return_tensors="pt")
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert expected["attention_mask"].all()

    def test_the_longest_of_some_texts(self):
        texts = tokenise(make_tokenizer(), TEXTS, 32)
        rows = np.array([9, 0, 3])
        assert (
            texts.longest(rows) == texts.lengths[rows].max() == texts.collate(rows, CPU)["input_ids"].shape[1]
        )

    def test_a_batch_of_a_width_is_padded_to_it_and_always_has_a_mask(self):
        texts = tokenise(make_tokenizer(), TEXTS, 32)
        rows = np.array([9, 0, 10])
        plain, wide = texts.collate(rows, CPU), texts.collate(rows, CPU, width=32)
        longest = plain["input_ids"].shape[1]
        for name, padding in (("input_ids", texts.pad_id), ("attention_mask", 0)):
            assert wide[name].shape == (3, 32)
            assert torch.equal(wide[name][:, :longest], plain[name])
            assert (wide[name][:, longest:] == padding).all()
        assert texts.collate(np.array([0, 1]), CPU, width=7)["attention_mask"].all()


class TestTokenBatches:
    def test_the_longest_come_first_and_no_batch_exceeds_the_budget(self):
        batches = token_batches(LENGTHS, 18)
        assert batches[0].tolist() == [1, 4]
        assert all(LENGTHS[rows].max() * len(rows) <= 18 for rows in batches)
        assert sorted(np.concatenate(batches).tolist()) == list(range(7))

    def test_short_texts_leave_a_batch_of_long_ones_that_is_large_enough(self):
        lengths = np.array([10, 10, 10, 9, 5, 5, 5, 5])

        def sizes(enough: int, tokens: int = 1000) -> list[int]:
            budget = TokenBudget(tokens, enough)
            return [len(rows) for rows, _ in in_token_batches(len, lengths, budget)]

        assert sizes(enough=1) == [4, 4]
        assert sizes(enough=40) == [4, 4]
        assert sizes(enough=41) == [5, 3]
        assert sizes(enough=1000) == [8]
        assert sizes(enough=1, tokens=20) == [2, 2, 4]

    def test_a_text_longer_than_the_budget_goes_alone(self):
        assert [len(rows) for rows in token_batches(np.array([50, 50]), 10)] == [1, 1]


class TestEpochBatches:
    def test_every_row_is_in_exactly_one_batch(self):
        lengths = np.arange(1, 236)
        batches = epoch_batches(lengths, 2, seed=1, epoch=0)
        assert len(batches) == 118
        assert sorted(np.concatenate(batches).tolist()) == list(range(235))

    def test_they_depend_on_seed_and_epoch_alone(self):
        def order(seed: int, epoch: int) -> list[list[int]]:
            return [rows.tolist() for rows in epoch_batches(LENGTHS, 2, seed=seed, epoch=epoch)]

        assert order(1, 0) == order(1, 0)
        assert order(1, 0) != order(1, 1)
        assert order(1, 0) != order(2, 0)

    def test_texts_of_a_batch_are_of_similar_length(self):
        lengths = np.tile(np.arange(1, 51), 8)
        spread = [np.ptp(lengths[rows]) for rows in epoch_batches(lengths, 8, seed=1, epoch=0)]
        assert max(spread) <= 2


LIMITED = """
import resource
from pathlib import Path
import numpy as np
import torch
from worker.muka.memory import TokenBudget, in_token_batches

step = lambda rows: len(torch.ones(len(rows), 4 << 20))
step(range(1))
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (300 << 20),) * 2)
print(*(size for _, size in in_token_batches(step, np.full(64, 10), TokenBudget(640))))
"""


class TestOutOfMemory:
    def test_half_as_many_texts_are_tried_and_nothing_is_lost(self):
        def step(rows: np.ndarray) -> int:
            if len(rows) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return len(rows)

        budget = TokenBudget(1000)
        done = [row for rows, _ in in_token_batches(step, LENGTHS, budget) for row in rows.tolist()]
        assert sorted(done) == list(range(7))
        assert budget.tokens < 1000

    def test_a_real_limit_of_memory_is_met_with_batches_that_fit(self):
        """64 texts of 16 MiB each, in a process that may take 300 MiB more than it has."""
        done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["16"] * 4

    def test_it_is_an_error_only_at_a_single_text(self):
        sizes = []

        def step(rows: np.ndarray) -> None:
            sizes.append(len(rows))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

        with pytest.raises(OutOfMemoryError_, match="9 tokens") as caught:
            list(in_token_batches(step, LENGTHS, TokenBudget(1000)))
        assert sizes == [7, 3, 1]
        assert caught.value.code == "out_of_memory"
        assert caught.value.hint

    def test_other_errors_pass(self):
        def step(rows: np.ndarray) -> None:
            raise RuntimeError("shape mismatch")

        with pytest.raises(RuntimeError, match="shape mismatch"):
            list(in_token_batches(step, LENGTHS, TokenBudget(1000)))
        assert not is_out_of_memory(ValueError("out of memory"))
