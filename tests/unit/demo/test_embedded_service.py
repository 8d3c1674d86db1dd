from pathlib import Path

import pytest

from app.client import ConnectionFailedError, MukaClient
from demo.embedded_service import embedded_service, log_tail


def test_it_answers_inside_of_the_block_and_is_gone_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUKA_BROKER_URL", "redis://nowhere.invalid")  # of the user's shell: not for the demo
    with embedded_service(tmp_path) as service, MukaClient(service.url, retries=0) as client:
        assert list(client.amalgamations.list()) == []
        assert service.url in log_tail(service.log)
    with MukaClient(service.url, retries=0) as client, pytest.raises(ConnectionFailedError):
        client.corpora.get("cor-1")
    assert (tmp_path / "data" / "muka.db").exists()
