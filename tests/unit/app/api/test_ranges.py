"""`Range` headers, whatever a client sends."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.api.ranges import ByteRange, parse_range
from app.domain.errors import RangeNotSatisfiableError


@given(
    header=st.text() | st.from_regex(r"bytes=\d{0,25}-\d{0,25}", fullmatch=True), size=st.integers(0, 2**40)
)
@example(header="bytes=0-" + "9" * 5000, size=1)
@example(header="bytes=\u0661-\u0662", size=10)
def test_any_header_gives_a_range_inside_the_file_or_none_or_the_one_error(header: str, size: int) -> None:
    wanted = None
    with contextlib.suppress(RangeNotSatisfiableError):
        wanted = parse_range(header, size)
    assert wanted is None or 0 <= wanted.start < wanted.stop <= size


@given(size=st.integers(1, 10_000), data=st.data())
def test_a_range_is_inclusive_as_the_standard_has_it(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    assert parse_range(f"bytes={first}-{last}", size) == ByteRange(first, last + 1)


def test_no_header_means_everything() -> None:
    assert parse_range(None, 10) is None


def test_a_suffix_of_nothing_is_not_satisfiable() -> None:
    with pytest.raises(RangeNotSatisfiableError):
        parse_range("bytes=-0", 10)
