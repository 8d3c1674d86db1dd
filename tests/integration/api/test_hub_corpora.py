"""Corpora from data sets on the Hub: the real client against a local server that speaks its protocol."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from huggingface_hub import constants, snapshot_download

from app.domain.errors import HubUnavailableError, InvalidCorpusError, PayloadTooLargeError
from app.domain.recipe import HubDataset, read_stored
from app.persistence.tables import Amalgamation
from app.services import corpora
from app.services.backend import Backend
from tests.hub_server import Hub

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def _parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


PUSHED = {
    "README.md": b"texts",
    "data/train-00000-of-00002.parquet": _parquet(text=["one", "two", " one "], label=[0, 1, 0]),
    "data/train-00001-of-00002.parquet": _parquet(text=["three", None], label=[0, 1]),
    "data/test-00000-of-00001.parquet": _parquet(text=["four", "five"], label=[0, 1]),
}


def _create(backend: Backend, dataset: str = "acme/texts", **options: Any) -> Any:
    corpus, _ = corpora.create_from_hub_dataset(backend, "default", HubDataset(dataset=dataset, **options))
    return corpus


def _texts(backend: Backend, corpus: Any) -> list[str]:
    return [row["text"] for row in corpora.preview(backend, "default", corpus.id, 10)]


def _refused(backend: Backend, pointer: str, **options: Any) -> InvalidCorpusError:
    with pytest.raises(InvalidCorpusError) as caught:
        _create(backend, **options)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
    return caught.value


def test_a_split_becomes_a_corpus(backend: Backend, hub: Hub, tmp_path: Path) -> None:
    hub.add("acme/texts", PUSHED, kind="datasets")
    corpus = _create(backend)
    assert _texts(backend, corpus) == ["one", "two", "three"]
    assert corpus.statistics["dropped_duplicates"] == corpus.statistics["dropped_empty"] == 1
    assert corpus.name == "acme/texts (train)"
    assert _create(backend).id == corpus.id
    assert _texts(backend, _create(backend, split="test")) == ["four", "five"]
    assert not list((tmp_path / "store" / ".staging").iterdir())


def test_other_formats_come_from_the_converted_branch(backend: Backend, hub: Hub) -> None:
    hub.add("acme/texts", {"train.csv": b"text\nraw\n"}, kind="datasets")
    converted = {"default/train/0000.parquet": _parquet(text=["a", "b"])}
    hub.add("acme/texts", converted, kind="datasets", ref="refs/convert/parquet")
    assert _texts(backend, _create(backend)) == ["a", "b"]


def test_a_revision_is_honoured(backend: Backend, hub: Hub) -> None:
    commit = hub.add("acme/texts", {"train.parquet": _parquet(text=["old", "older"])}, kind="datasets")
    hub.add("acme/texts", PUSHED, kind="datasets")
    assert _texts(backend, _create(backend, revision=commit)) == ["old", "older"]


def test_what_was_read_is_read_again_when_the_data_set_has_moved_on(backend: Backend, hub: Hub) -> None:
    two = {f"{config}/train.parquet": _parquet(text=[config]) for config in ("de", "default")}
    commit = hub.add("acme/texts", two, kind="datasets")
    corpus, pinned = corpora.create_from_hub_dataset(backend, "default", HubDataset(dataset="acme/texts"))
    assert pinned == HubDataset(dataset="acme/texts", revision=commit, config="default")
    hub.add("acme/texts", PUSHED, kind="datasets")
    again, same = corpora.create_from_hub_dataset(backend, "default", pinned)
    assert (again.id, same) == (corpus.id, pinned)


def test_a_job_remembers_the_commit_and_an_older_worker_knows_jobs_that_need_none(
    api: TestClient, backend: Backend, body: dict[str, Any], hub: Hub
) -> None:
    commit = hub.add("acme/texts", PUSHED, kind="datasets")
    read, uploaded = (
        api.post("/amalgamations", json=each).json()
        for each in (body | {"corpus": {"dataset": "acme/texts"}}, body)
    )
    with backend.database.read() as session:
        rows = [session.get_one(Amalgamation, job["id"]) for job in (read, uploaded)]
        assert rows[0].resolved["dataset"]["revision"] == commit
        assert "dataset" not in rows[1].resolved
        assert all(read_stored(row.recipe, row.resolved) for row in rows)
    assert read["recipe"]["corpus"]["revision"] is None, "as it was sent"


def test_what_is_missing_is_named(backend: Backend, hub: Hub) -> None:
    hub.add("acme/texts", PUSHED, kind="datasets")
    hub.add("acme/raw", {"a.csv": b"text"}, kind="datasets")
    two = {"en/train.parquet": _parquet(text=["a"]), "de/train.parquet": _parquet(text=["b"])}
    hub.add("acme/two", two, kind="datasets")
    assert "no data set acme/none" in _refused(backend, "/corpus/dataset", dataset="acme/none").detail
    assert "no name" in _refused(backend, "/corpus/dataset", dataset="a/b/c").detail
    assert "no Parquet" in _refused(backend, "/corpus/dataset", dataset="acme/raw").detail
    assert "acme/texts@v9" in _refused(backend, "/corpus/revision", revision="v9").detail
    assert "'test', 'train'" in _refused(backend, "/corpus/split", split="dev").detail
    assert "'de', 'en'" in _refused(backend, "/corpus/config", dataset="acme/two").detail
    assert "'text', 'label'" in _refused(backend, "/corpus/text_column", text_column="body").detail
    assert "must hold strings" in _refused(backend, "/corpus/text_column", text_column="label").detail
    assert _texts(backend, _create(backend, "acme/two", config="de", split="train")) == ["b"]
    assert [*backend.store.list("corpora")] != []


def test_a_gated_data_set_says_what_to_do(backend: Backend, hub: Hub) -> None:
    hub.add("acme/texts", PUSHED, kind="datasets", gated=True)
    assert "accept its conditions" in _refused(backend, "/corpus/dataset").detail


def test_a_hub_in_trouble_is_not_the_user_s_fault(backend: Backend, hub: Hub) -> None:
    hub.status = 500
    with pytest.raises(HubUnavailableError, match="try again later"):
        _create(backend)


def test_a_large_split_is_refused_before_it_is_downloaded(backend: Backend, hub: Hub) -> None:
    hub.add("acme/texts", PUSHED, kind="datasets")
    small = Backend(
        settings=backend.settings.model_copy(update={"max_corpus_bytes": 100}),
        database=backend.database,
        store=backend.store,
        queue=backend.queue,
    )
    with pytest.raises(PayloadTooLargeError, match="limit is 100"):
        _create(small)
    assert not [request for request in hub.requests if "resolve" in request]


def test_offline_the_cache_stands_for_the_hub(
    backend: Backend, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.add("acme/texts", PUSHED, kind="datasets")
    snapshot_download("acme/texts", repo_type="dataset")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert _texts(backend, _create(backend)) == ["one", "two", "three"]
    assert "offline" in _refused(backend, "/corpus/dataset", dataset="acme/other").detail
    assert len(hub.requests) == asked


def test_inline_texts_become_a_corpus(backend: Backend) -> None:
    corpus = corpora.create_from_texts(backend, "default", ["a", " b", "a"])
    assert _texts(backend, corpus) == ["a", "b"]
    with pytest.raises(InvalidCorpusError) as caught:
        corpora.create_from_texts(backend, "default", ["a", "b", "c", "x" * 20_001, "\ud800"])
    assert [fault.pointer for fault in caught.value.faults] == ["/corpus/texts/3", "/corpus/texts/4"]
    with pytest.raises(InvalidCorpusError) as caught:
        corpora.create_from_texts(backend, "default", ["a", "a "])
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [
        ("/corpus/texts", "all_duplicates")
    ]
