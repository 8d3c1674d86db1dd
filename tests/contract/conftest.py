"""Requests that nobody has thought of, to a service as in production."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.contract.installation import Installation, installation


@pytest.fixture
def made(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Installation]:
    """API and workers on Postgres and Redis, with keys on and objects of every kind."""
    settings = Settings(
        data_dir=tmp_path, store_dir=tmp_path / "store", database_url=postgres_url, broker_url=redis_url
    )
    with installation(settings, tmp_path) as running:
        yield running
