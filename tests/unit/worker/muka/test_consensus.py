"""Consensus, on corpora made for it."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.resident_memory import resident
from tests.unit.worker.muka.evidence import outputs, permuted
from worker.muka.columns import Columns, spans
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, consensus, get_method
from worker.muka.methods.consensus import Consensus

PER_CLASS = 30
OWNER = torch.arange(4).repeat_interleave(PER_CLASS) // 2


def corpus(*, confident_stranger: bool = True, seed: int = 0) -> Evidence:
    """Two teachers of two classes each: each draws its own texts together and scatters the other's.

    The first is surer of its strangers than the second is of its own texts, so that certainty alone gives it
    every text; but either is surest of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(4).repeat_interleave(PER_CLASS)
    answers = []
    for i in range(2):
        centres = 4 * torch.nn.functional.one_hot(kind % 2, 16).float()
        tight = centres + 0.3 * torch.randn(len(kind), 16, generator=generator)
        scattered = 4 * torch.randn(len(kind), 16, generator=generator)
        features = torch.where((i == OWNER)[:, None], tight, scattered)
        sharpness = (4.0 if i == 0 and confident_stranger else 2.0) * torch.where(i == OWNER, 1.0, 0.75)
        logits = sharpness[:, None] * torch.nn.functional.one_hot(kind % 2, 2)
        answers.append(outputs(logits, features=features))
    return Evidence(LabelSpace.union([["a", "b"], ["c", "d"]]), answers)


def chosen(w: Tensor) -> Tensor:
    return w.argmax(-1)


def test_a_teacher_that_is_surer_than_another_gets_only_the_texts_that_it_knows():
    evidence = corpus()
    by_certainty = get_method("muka", mc_samples=0).supervise(evidence).choice
    assert (chosen(by_certainty.w) == 0).all(), "the case is made so that certainty alone is wrong"
    choice = Consensus().supervise(evidence).choice
    assert (chosen(choice.w) == OWNER).float().mean() > 0.95


def test_a_corpus_with_few_texts_a_label_is_left_to_the_teachers_certainty():
    few = corpus().rows(slice(0, 12))  # three a label
    few = Evidence(few.label_space, few.outputs)
    w = Consensus().supervise(few).choice.w
    torch.testing.assert_close(w, get_method("muka", mc_samples=0).supervise(few).choice.w)


def test_a_label_with_few_texts_is_not_outvoted():
    evidence = corpus()
    rare = torch.cat([torch.arange(27, 30), torch.arange(PER_CLASS, 4 * PER_CLASS)])  # three texts of `a`
    few = Evidence(evidence.label_space, [each.rows(rare) for each in evidence.outputs])
    assert (chosen(Consensus().supervise(few).choice.w)[:3] == 0).all()


def test_teachers_who_share_a_label_share_its_texts():
    evidence = corpus(confident_stranger=False)
    shared = Evidence(LabelSpace.union([["a", "b"], ["a", "b"]]), [evidence.outputs[0]] * 2)
    w = Consensus().supervise(shared).choice.w
    torch.testing.assert_close(w, torch.full_like(w, 0.5))


def test_a_part_of_the_corpus_gets_what_the_whole_gave_it():
    evidence = corpus()
    whole = Consensus().supervise(evidence)
    part = Consensus().supervise(evidence.rows(slice(40, 70)))
    torch.testing.assert_close(part.columns["q"], whole.columns["q"][40:70])
    alone = Consensus().supervise(
        Evidence(evidence.label_space, [o.rows(slice(40, 70)) for o in evidence.outputs])
    )
    assert not torch.allclose(alone.columns["q"], part.columns["q"]), "the rest of the corpus must matter"


def test_a_large_corpus_is_learnt_from_a_sample_that_the_seed_decides(monkeypatch):
    monkeypatch.setattr(consensus, "REFERENCE_TEXTS", 80)
    evidence = corpus()
    first, again = (Consensus().supervise(replace(evidence, seed=1)).choice.w for _ in range(2))
    other = Consensus().supervise(replace(evidence, seed=2)).choice.w
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (chosen(first) == OWNER).float().mean() > 0.95


def test_features_that_say_nothing_do_no_harm():
    evidence = corpus(confident_stranger=False)
    flat = [replace(each, features=torch.ones(len(OWNER), 16)) for each in evidence.outputs]
    w = Consensus().supervise(Evidence(evidence.label_space, flat)).choice.w
    torch.testing.assert_close(w, torch.full_like(w, 0.5))


def test_margin_weighting_counts_a_text_by_how_decided_its_teacher_is():
    evidence = corpus()
    made = Consensus(reweight="margin").supervise(evidence)
    best, second = made.choice.w.sort(-1, descending=True).values.unbind(-1)
    torch.testing.assert_close(made.columns["m"], best - second + 1e-6)
    assert (Consensus().supervise(evidence).columns["m"] == 1).all()


def test_the_order_of_the_teachers_changes_nothing_but_the_labels_order():
    evidence = corpus()
    there, back = Consensus().supervise(evidence), Consensus().supervise(permuted(evidence, [1, 0]))
    torch.testing.assert_close(there.choice.w, back.choice.w.flip(-1))


def test_evidence_without_features_is_refused():
    evidence = corpus()
    bare = Evidence(evidence.label_space, [outputs(each.logits) for each in evidence.outputs])
    with pytest.raises(ValueError, match="features=True"):
        Consensus().supervise(bare)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it")
def test_the_sample_of_a_mapped_corpus_does_not_bring_all_of_it_into_memory(tmp_path):
    """Every fourth of 64 MiB of rows; the kernel maps the neighbours of what is read."""
    columns = Columns(16_384, tmp_path)
    for span in spans(16_384):
        columns.put(span.start, {"features": torch.ones(span.stop - span.start, 1024)})
    most = []

    def on_block() -> None:
        most.append(resident())
        columns.let_go()

    columns.let_go()
    before = resident()
    rows = torch.arange(0, 16_384, 4)
    sample = consensus._gathered(columns["features"], rows, on_block)
    assert torch.equal(sample, torch.ones(4096, 1024))
    assert len(most) == 4
    assert max(most) - before < 48 << 20  # of them 12 MiB of the sample
