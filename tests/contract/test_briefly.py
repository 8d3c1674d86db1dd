"""Some hundred generated requests keep the contract: a short run of `make test-contract`, by name."""

from pathlib import Path

from tests.contract.campaign import campaign
from tests.contract.installation import Installation

BRIEF = ("--phases", "examples,fuzzing,stateful", "--max-examples", "8")


def test_some_hundred_generated_requests_keep_the_contract(made: Installation, tmp_path: Path) -> None:
    came = campaign(made, tmp_path, seed=1, options=BRIEF)
    assert not came.failed, came.told
    assert came.answers.total() >= 300, came.answers
    assert "unexpected error" not in made.api.output()
