"""At least 5,000 generated requests keep the contract. Collected by name only, by `make test-contract`."""

import os
import random
from pathlib import Path

import httpx
import pytest

from tests.contract.campaign import LIMIT_SECONDS, campaign
from tests.contract.installation import Installation

LEAST_REQUESTS = 5_000


@pytest.mark.timeout(LIMIT_SECONDS + 300)
def test_five_thousand_generated_requests_keep_the_contract(made: Installation, tmp_path: Path) -> None:
    """MUKA_TEST_SEED repeats a run: schemathesis tells the seed at the end of its report."""
    seed = int(os.environ.get("MUKA_TEST_SEED") or random.SystemRandom().getrandbits(32))
    came = campaign(made, tmp_path, seed=seed)
    print(came.told)  # noqa: T201  (the figures, and the seed)
    assert not came.failed
    assert came.answers.total() >= LEAST_REQUESTS, came.answers
    assert not {status for status in came.answers if status == 500}
    paths = httpx.get(f"{made.url}/openapi.json").json()["paths"]
    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert described <= came.operations, "every operation was asked"
    assert "unexpected error" not in made.api.output()
