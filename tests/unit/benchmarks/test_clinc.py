from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.client import MukaClient
from benchmarks._clinc_data import DOMAINS, LABELLED_PER_INTENT, load
from benchmarks._clinc_seed import stage_seconds
from benchmarks.clinc import summarised
from tests.unit.app.client.scripted_server import Reply, running


@pytest.fixture
def clinc(tmp_path: Path) -> Path:
    for part, count in (("train", 100), ("test", 30)):
        rows = [
            {"text": f"{part} {domain} {number}", "label": f"intent of {domain}", "domain": domain}
            for domain in (*DOMAINS, "work")
            for number in range(count)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{part}.parquet")
    return tmp_path


def test_teachers_corpus_and_test_share_no_text(clinc: Path) -> None:
    split = load(clinc, seed=1)
    parts = [{row.text for row in part} for part in (split.teachers, split.corpus, split.test)]
    assert [len(part) for part in parts] == [len(DOMAINS) * LABELLED_PER_INTENT] * 2 + [90]
    assert len(set().union(*parts)) == sum(map(len, parts))
    assert {row.domain for row in split.corpus} == set(DOMAINS)


def test_the_seed_decides_the_cut(clinc: Path) -> None:
    assert load(clinc, seed=1) == load(clinc, seed=1)
    assert set(load(clinc, seed=1).teachers) != set(load(clinc, seed=2).teachers)


def test_data_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        load(tmp_path, seed=1)


def test_a_stage_lasts_until_the_next_one_begins() -> None:
    job = {
        "id": "amg-1",
        "status": "succeeded",
        "created_at": "2026-11-01T10:00:00Z",
        "finished_at": "2026-11-01T10:01:00.5Z",
    }
    events = [
        {"sequence": 1, "type": "status", "created_at": "2026-11-01T10:00:00Z"},
        {"sequence": 2, "type": "stage", "data": {"stage": "scoring"}, "created_at": "2026-11-01T10:00:02Z"},
        {"sequence": 3, "type": "stage", "data": {"stage": "training"}, "created_at": "2026-11-01T10:00:30Z"},
    ]
    with running() as server, MukaClient(server.url) as client:
        server.on("GET", "/amalgamations/amg-1", Reply.of(job))
        server.on("GET", "/amalgamations/amg-1/events", Reply.of({"data": events, "has_more": False}))
        found = stage_seconds(client.amalgamations.get("amg-1"))
    assert found == {"queued": 2.0, "scoring": 28.0, "training": 30.5}


def test_mean_and_spread_of_what_all_seeds_have() -> None:
    assert summarised([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {
        "a": {"mean": 2.0, "spread": pytest.approx(2**0.5)}
    }
    assert summarised([{"a": 1.0}]) == {"a": {"mean": 1.0, "spread": 0.0}}
