"""One installation for the suite, abused by one test after the other; each leaves it idle."""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete

from app.domain.status import TERMINAL
from app.persistence.tables import Amalgamation
from tests.chaos.gate import build_gates
from tests.chaos.installation import PROMISED_SECONDS, Installation, installation
from tests.servers import wait_until


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Postgres, Redis, an API and two workers."""
    with installation(tmp_path_factory.mktemp("muka")) as made:
        build_gates(made.database.url)
        assert made.undisturbed
        yield made


@pytest.fixture
def world(site: Installation) -> Iterator[Installation]:
    """The installation, up. What a failed test has left behind is mended."""
    for server in (site.postgres, site.redis):
        if server.process.poll() is not None:
            server.start()
    wait_until(site.answers, "the API is ready", seconds=PROMISED_SECONDS)
    yield site
    with site.database.write() as session:
        session.execute(delete(Amalgamation).where(Amalgamation.status.not_in(TERMINAL)))
