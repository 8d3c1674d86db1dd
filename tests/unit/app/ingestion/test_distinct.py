"""The set of digests behaves as a set of texts."""

from hypothesis import given
from hypothesis import strategies as st

from app.ingestion.distinct import DistinctTexts


@given(st.lists(st.binary(max_size=2)))
def test_it_numbers_distinct_texts_as_a_dict_would(texts: list[bytes]) -> None:
    ours, reference = DistinctTexts(), dict[bytes, int]()
    for text in texts:
        is_new = text not in reference
        assert ours.add(text) == (reference.setdefault(text, len(reference)), is_new)
    assert len(ours) == len(reference)


def test_it_grows() -> None:
    ours = DistinctTexts()
    for _ in range(2):
        numbers = [ours.add(b"%d" % number)[0] for number in range(20_000)]
        assert numbers == list(range(20_000))
