"""Twins of two teachers, of which one takes all texts at first; and labels that the corpus has no text of."""

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tests.unit.worker.muka.evidence import outputs, permuted
from worker.muka import splits
from worker.muka.errors import StoppedError
from worker.muka.fitting import Fit, Fitting
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence
from worker.muka.methods.consensus import Consensus
from worker.muka.splits import Move, Split, proposals, two_means

PER_LABEL = 25
LABELS = (("flight", "hotel", "timezone", "visa"), ("alarm", "time", "weather", "joke"))
NAMES = [name for labels in LABELS for name in labels]
WIDTH = 20


def corpus(
    *,
    without: str | None = None,
    twins: Sequence[str] = ("timezone",),
    torn: str | None = None,
    seed: int = 0,
) -> Evidence:
    """Each teacher draws the texts of its own labels together, and those of the other's less so.

    But the second takes `timezone` for `time`, and is surer of it than the first, which calls everything
    that it does not know `timezone`, too. To the features of the second both are much the same, while to
    those of the first they are two clusters. All `twins` are so, and `torn` is a label of the second whose
    texts lie in two places for the first.
    """
    generator = torch.Generator().manual_seed(seed)
    names = [name for name in NAMES if name != without for _ in range(PER_LABEL)]
    answers = []
    for i, own in enumerate(LABELS):
        features, logits = [], []
        for name in names:
            noise = torch.randn(WIDTH, generator=generator)
            place, sharpness, answer = 5 * _axis(8 + NAMES.index(name)) + 0.8 * noise, 1.0, 2
            if name in own:
                answer, sharpness = own.index(name), 1.0 if name in twins else 6.0
                place = 8 * _axis(answer) + 0.3 * noise
            elif i == 1 and name in twins:
                answer, sharpness = own.index("time"), 12.0
                place = 6 * _axis(answer) + 3 * _axis(4 + twins.index(name)) + 0.6 * noise
            elif name == torn:
                place += (-1) ** len(features) * 4 * _axis(4)
            features.append(place)
            logits.append(sharpness * torch.nn.functional.one_hot(torch.tensor(answer), 4).float())
        answers.append(outputs(torch.stack(logits), features=torch.stack(features)))
    return Evidence(LabelSpace.union(LABELS), answers)


def _axis(number: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(number), WIDTH).float()


def labelled(evidence: Evidence) -> list[str]:
    """What the golden supervision says of each text."""
    q = Consensus().supervise(evidence).columns["q"]
    return [evidence.label_space.labels[number] for number in q.argmax(-1).tolist()]


def right(found: list[str], name: str, names: list[str] = NAMES) -> float:
    """Share of the texts of this label that are said to be of it."""
    truth = [each for each in names for _ in range(PER_LABEL)]
    of_it = [said == name for said, true in zip(found, truth, strict=True) if true == name]
    return sum(of_it) / len(of_it)


@pytest.mark.parametrize("seed", range(4))
def test_a_label_whose_texts_all_went_to_its_twin_is_found_again(seed, monkeypatch):
    evidence = corpus(seed=seed)
    found = labelled(evidence)
    assert all(right(found, name) > 0.9 for name in NAMES)
    monkeypatch.setattr(splits, "_MOST_TRIALS", 0)
    assert right(labelled(corpus(seed=seed)), "timezone") == 0.0, "the case is made so that it is lost"


@pytest.mark.parametrize("seed", range(4))
def test_so_are_two_whose_texts_went_to_the_same_twin(seed):
    found = labelled(corpus(twins=("timezone", "visa"), seed=seed))
    assert all(right(found, name) > 0.9 for name in NAMES)


@pytest.mark.parametrize("torn", [None, "alarm"])
@pytest.mark.parametrize("without", ["timezone", "visa", "joke"])
@pytest.mark.parametrize("seed", range(4))
def test_a_label_that_no_text_has_takes_none_from_the_others(without, torn, seed):
    found = labelled(corpus(without=without, torn=torn, seed=seed))
    there = [name for name in NAMES if name != without]
    twin = {"timezone"} - {without}
    assert all(right(found, name, there) > 0.9 for name in there if name not in twin)
    assert found.count(without) < 0.3 * PER_LABEL


def test_where_nothing_is_lost_nothing_is_tried(monkeypatch):
    evidence = corpus()
    plain = Evidence(evidence.label_space, [each.rows(_without("timezone")) for each in evidence.outputs])
    monkeypatch.setattr(splits, "_LOST", 0.0)
    untouched = Consensus().supervise(plain).columns["q"]
    monkeypatch.setattr(splits, "_MOST_TRIALS", 0)
    torch.testing.assert_close(Consensus().supervise(_again(plain)).columns["q"], untouched, rtol=0, atol=0)


def _without(name: str) -> Tensor:
    return torch.tensor([k for k in range(len(NAMES) * PER_LABEL) if NAMES[k // PER_LABEL] != name])


def _again(evidence: Evidence) -> Evidence:
    """The same, with nothing learnt from it."""
    return Evidence(evidence.label_space, evidence.outputs)


def test_the_order_of_the_teachers_does_not_matter():
    evidence = corpus()
    assert labelled(evidence) == labelled(permuted(evidence, [1, 0]))


def test_a_label_of_several_teachers_is_looked_for_with_each():
    evidence = corpus()
    three = Evidence(LabelSpace.union([*LABELS, LABELS[0]]), [*evidence.outputs, evidence.outputs[0]])
    found = labelled(three)
    assert all(right(found, name) > 0.9 for name in NAMES)


def test_a_reason_to_stop_ends_the_search():
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) > 8 + 5:  # the rounds of the mixture are over
            raise StoppedError

    evidence = corpus()
    with pytest.raises(StoppedError):
        Consensus().supervise(Evidence(evidence.label_space, evidence.outputs, on_block=stop))


def test_two_means_finds_two_clusters_whatever_their_sizes():
    generator = torch.Generator().manual_seed(1)
    far = torch.randn(9, 5, generator=generator) + 10 * torch.ones(5)
    near = torch.randn(40, 5, generator=generator)
    half = two_means(torch.cat([far, near]))
    assert half[:9].all() != half[9:].all()
    assert len(half[:9].unique()) == len(half[9:].unique()) == 1


def test_points_that_are_all_the_same_have_no_halves():
    half = two_means(torch.ones(6, 3))
    assert half.all() or not half.any()


CHAIN = (("spelling", "flight", "hotel"), ("translate", "alarm", "joke"), ("language", "song", "radio"))
TAKER = {"spelling": "translate", "translate": "language"}


def chain(seed: int) -> tuple[Evidence, list[str]]:
    """Three teachers: `translate` takes the texts of `spelling`, and `language` takes those of `translate`.

    So only `spelling` has no texts, but when it gets them back, `translate` has none. With the evidence comes
    the label of each text.
    """
    generator = torch.Generator().manual_seed(seed)
    every = [name for labels in CHAIN for name in labels]
    names = [name for name in every for _ in range(PER_LABEL)]
    answers = []
    for own in CHAIN:
        features, logits = [], []
        for name in names:
            noise, taker = torch.randn(WIDTH, generator=generator), TAKER.get(name)
            place, sharpness, answer = 5 * _axis(8 + every.index(name)) + 0.8 * noise, 1.0, 1
            if name in own:
                answer, sharpness = own.index(name), 1.0 if taker else 6.0
                place = 8 * _axis(answer) + 0.3 * noise
            elif taker in own:
                answer, sharpness = own.index(taker), 12.0
                place = 6 * _axis(answer) + 3 * _axis(5) + 0.6 * noise
            features.append(place)
            logits.append(sharpness * torch.nn.functional.one_hot(torch.tensor(answer), 3).float())
        answers.append(outputs(torch.stack(logits), features=torch.stack(features)))
    return Evidence(LabelSpace.union(CHAIN), answers), names


@pytest.mark.parametrize("seed", range(4))
def test_a_taker_whose_own_texts_went_to_a_third_label_finds_them_in_the_same_move(seed, monkeypatch):
    evidence, names = chain(seed)
    assert labelled(evidence) == names
    monkeypatch.setattr(splits, "_FURTHER", 0)
    said = labelled(chain(seed)[0])
    assert "spelling" not in said, "one split alone does not find it"
    assert [name for name, true in zip(said, names, strict=True) if true == "translate"] == (
        ["language"] * PER_LABEL
    )


def test_no_label_is_offered_a_half_of_its_own_cluster():
    evidence, names = chain(0)
    space = evidence.label_space
    p = [torch.softmax(each.logits, dim=-1) for each in evidence.outputs]
    fitting = Fitting(space, [], [each.features for each in evidence.outputs], p, 2.0, lambda: None)
    true = torch.tensor([space.label2id[name] for name in names])
    r = torch.nn.functional.one_hot(true, len(space)).float()
    flight = space.label2id["flight"]
    offered = proposals(fitting, r, [flight])[flight]
    assert offered, "the first teacher calls whatever it does not know a flight"
    assert all(split.taker != flight for split in offered)


Counts = tuple[int, int, int, int]


class Told:
    """Rounds that come to what they are told, by how many texts each label is given."""

    def __init__(self, outcomes: dict[Counts, tuple[float, list[float]]]) -> None:
        self._outcomes = outcomes
        self.asked: list[Counts] = []

    def rounds(self, r: Tensor, _: int) -> Fit:
        given = tuple(r.sum(0).int().tolist())
        self.asked.append(given)
        log_likelihood, texts = self._outcomes[given]
        spread = torch.tensor(texts) / len(r)
        return Fit(None, spread.expand(len(r), -1), log_likelihood)


class TestWhichMovesAreMade:
    """Labels 0 and 1 are lost among 40 texts; 2 and 3 have 20 each."""

    NOTHING: ClassVar = {(0, 0, 20, 20): (0.0, [0.0, 0.0, 20.0, 20.0])}
    R = torch.nn.functional.one_hot(torch.arange(40) // 20 + 2, 4).float()
    FIRST = Split(0, 2, torch.arange(8), 1.0)
    GIVEN = (8, 0, 12, 20)

    def search(
        self,
        outcomes: dict[Counts, tuple[float, list[float]]],
        *tried: Split,
        further: Sequence[Split] = (),
    ) -> splits._Search:
        search = splits._Search(Told(self.NOTHING | outcomes))
        search._likeliest = lambda _: list(tried)
        search._further = lambda _, first: list(further) if first is self.FIRST else []
        return search

    def made(self, outcomes: dict[Counts, tuple[float, list[float]]], *tried: Split, **other) -> list[Move]:
        return self.search(outcomes, *tried, **other).better(Fit(None, self.R, 0.0))

    def test_one_that_explains_the_texts_better(self):
        assert self.made({self.GIVEN: (17.0, [8.0, 0.0, 12.0, 20.0])}, self.FIRST) == [Move((self.FIRST,))]

    def test_but_not_for_less_than_two_a_text(self):
        assert self.made({self.GIVEN: (16.0, [8.0, 0.0, 12.0, 20.0])}, self.FIRST) == []

    @pytest.mark.parametrize("texts", [[2.9, 0.0, 17.1, 20.0], [17.1, 0.0, 2.9, 20.0]])
    def test_nor_where_one_of_both_is_lost_afterwards(self, texts):
        assert self.made({self.GIVEN: (100.0, texts)}, self.FIRST) == []

    def test_of_two_of_the_same_cluster_the_better_one(self):
        second = Split(1, 2, torch.arange(6), 2.0)
        texts = [8.0, 8.0, 12.0, 20.0]
        outcomes = {self.GIVEN: (30.0, texts), (0, 6, 14, 20): (20.0, texts)}
        assert self.made(outcomes, self.FIRST, second) == [Move((self.FIRST,))]
        other = Split(1, 3, torch.arange(20, 26), 2.0)
        outcomes = {self.GIVEN: (20.0, texts), (0, 6, 20, 14): (30.0, texts)}
        assert self.made(outcomes, self.FIRST, other) == [Move((other,)), Move((self.FIRST,))]

    def test_of_two_for_the_same_label_the_better_one(self):
        second, texts = Split(0, 3, torch.arange(20, 26), 1.0), [8.0, 0.0, 12.0, 20.0]
        outcomes = {self.GIVEN: (20.0, texts), (6, 0, 20, 14): (30.0, texts)}
        assert self.made(outcomes, self.FIRST, second) == [Move((second,))]

    FURTHER = Split(2, 3, torch.arange(30, 40), 1.0)
    BOTH = (8, 0, 22, 10)

    def test_two_together_where_the_first_leaves_its_taker_without_texts(self):
        outcomes = {self.GIVEN: (5.0, [20.0, 0.0, 0.0, 20.0]), self.BOTH: (37.0, [20.0, 0.0, 10.0, 10.0])}
        assert self.made(outcomes, self.FIRST, further=[self.FURTHER]) == [Move((self.FIRST, self.FURTHER))]

    @pytest.mark.parametrize(
        ("log_likelihood", "texts"),
        [
            (36.0, [20.0, 0.0, 10.0, 10.0]),
            (100.0, [20.0, 0.0, 18.0, 2.0]),
            (100.0, [20.0, 0.0, 2.0, 18.0]),
            (100.0, [2.0, 0.0, 19.0, 19.0]),
        ],
    )
    def test_but_not_for_less_than_two_a_text_nor_where_one_of_the_three_is_lost(self, log_likelihood, texts):
        outcomes = {self.GIVEN: (5.0, [20.0, 0.0, 0.0, 20.0]), self.BOTH: (log_likelihood, texts)}
        assert self.made(outcomes, self.FIRST, further=[self.FURTHER]) == []

    @pytest.mark.parametrize("texts", [[8.0, 0.0, 12.0, 20.0], [0.0, 0.0, 0.0, 40.0]])
    def test_no_second_one_where_the_taker_keeps_texts_or_the_lost_label_gets_none(self, texts):
        """The outcome of both together is not even asked for."""
        assert self.made({self.GIVEN: (5.0, texts)}, self.FIRST, further=[self.FURTHER]) == []

    def test_no_more_than_so_many_are_tried_in_all(self, monkeypatch):
        monkeypatch.setattr(splits, "_MOST_TRIALS", 1)
        search = self.search({self.GIVEN: (5.0, [20.0, 0.0, 0.0, 20.0])}, self.FIRST, further=[self.FURTHER])
        assert [search.better(Fit(None, self.R, 0.0)) for _ in range(2)] == [[], []]
        assert search._fitting.asked.count(self.GIVEN) == 1
