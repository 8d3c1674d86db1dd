"""A slice of `make fuzz`: the kept inputs, and the first of the new ones."""

import pytest

from tests.fuzz.running import run


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("texts", 400),
        ("parquet", 300),
        ("archives", 300),
        ("weights", 1000),
        ("configs", 400),
        ("teachers", 80),
    ],
)
def test_no_file_does_more_than_to_be_refused(name: str, inputs: int) -> None:
    result = run(name, inputs)
    assert not result.findings, "\n".join(f"input {each.index}: {each.why}" for each in result.findings)
    assert result.read + result.refused + result.deaths == inputs
    assert result.read > inputs / 20, "most are broken, but not all"
