"""The plan tells what a job really finds: a worker computes, the API foretells, another worker run agrees."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file

from app.domain.recipe import ResolvedTeacher
from app.persistence import stored_outputs
from app.persistence.tables import Model, StoredOutput
from app.services.backend import Backend
from tests.jobs import OWNER, add_corpus, add_job, add_teacher, job_of
from tests.tiny_models import TEXTS, make_teacher
from worker.__main__ import carry_out
from worker.lease import Lease, claim

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Json = dict[str, Any]
LABELS = (("travel", "money"), ("food", "other"))
MANY = [f"{text} {number}" for number in range(100) for text in TEXTS]
"""1,200 texts: two shards."""
n = len(MANY)


@pytest.fixture
def teachers(backend: Backend, tmp_path: Path) -> list[ResolvedTeacher]:
    torch.set_num_threads(1)
    made = []
    for i, labels in enumerate(LABELS):
        teacher = add_teacher(backend.store, make_teacher(tmp_path / str(i), labels, seed=i), labels)
        _add_model(backend, teacher)
        made.append(teacher)
    return made


def _add_model(backend: Backend, teacher: ResolvedTeacher) -> None:
    folder = backend.store.local_path(teacher.storage_prefix or "")
    files = [
        {"path": path.name, "size_bytes": path.stat().st_size, "sha256": "0" * 64}
        for path in folder.iterdir()
    ]
    with backend.database.write() as session:
        session.add(
            Model(
                id=teacher.object_id,
                owner=OWNER,
                digest=teacher.digest,
                storage_prefix=teacher.storage_prefix,
                size_bytes=1,
                files=files,
                architecture=teacher.architecture,
                model_type="bert",
                labels=list(teacher.labels),
                parameters=1000,
            )
        )


@pytest.fixture
def body(backend: Backend, teachers: list[ResolvedTeacher]) -> Json:
    return {
        "teachers": [teacher.reference for teacher in teachers],
        "corpus": add_corpus(backend.database, backend.store, MANY),
        "method": {"name": "muka", "mc_samples": 2},
        "training": {"epochs": 1, "max_length": 8},
    }


@pytest.fixture
def run(backend: Backend, teachers: list[ResolvedTeacher]) -> Callable[[Json], list[Json]]:
    """Run the job as a worker does; answers what the report says of each teacher."""

    def run(body: Json) -> list[Json]:
        asked = {key: body[key] for key in ("method", "training", "student") if key in body}
        job_id = add_job(backend.database, teachers=teachers, corpus_id=body["corpus"], **asked)
        attempt = claim(backend.database, job_id, worker="here", lease_seconds=60)
        assert attempt is not None
        lease = Lease(backend.database, job_id, attempt, lease_seconds=60, heartbeat_seconds=1)
        with lease.kept():
            assert carry_out(backend.settings, backend.database, backend.store, lease) == 0
        report = job_of(backend.database, job_id).report
        assert report is not None, job_of(backend.database, job_id).failure
        of_teachers: list[Json] = report["teachers"]
        return of_teachers

    return run


def _planned(api: TestClient, body: Json) -> tuple[list[Json], int]:
    answer = api.post("/amalgamations/plan", json=body).json()
    return [teacher["stored"] for teacher in answer["teachers"]], answer["estimates"]["scoring_passes"]


def test_what_is_foretold_is_what_the_next_job_finds(
    api: TestClient, body: Json, run: Callable[[Json], list[Json]]
) -> None:
    nothing = {"shards": 2, "shards_stored": 0, "passes": 3 * n}
    assert _planned(api, body) == ([nothing] * 2, 6 * n)
    run(body)
    all_of_it = {"shards": 2, "shards_stored": 2, "passes": 0}
    assert _planned(api, body) == ([all_of_it] * 2, 0)
    for change in (
        {"method": {"name": "muka", "mc_samples": 2, "temperature": 0.5}, "student": {"layers": 1}},
        {"method": {"name": "muka", "mc_samples": 3}},
        {"method": {"name": "cfl"}},
        {"training": {"epochs": 1, "max_length": 7}},
    ):
        told, passes = _planned(api, body | change)
        found = run(body | change)
        assert [each["passes"] for each in told] == [each["passes_computed"] for each in found]
        assert [each["shards_stored"] for each in told] == [each["shards_reused"] for each in found]
        assert passes == sum(each["passes"] for each in told)


def test_half_of_it_is_told_as_half(
    api: TestClient, backend: Backend, body: Json, run: Callable[[Json], list[Json]]
) -> None:
    run(body)
    shorter = body | {"corpus": add_corpus(backend.database, backend.store, [*MANY[:1024], "something new"])}
    told, passes = _planned(api, shorter)
    assert told == [{"shards": 2, "shards_stored": 1, "passes": 3}] * 2
    assert passes == 6


def test_adaptive_samples_of_all_teachers_go_together(
    api: TestClient, backend: Backend, body: Json, run: Callable[[Json], list[Json]]
) -> None:
    body |= {"method": {"name": "muka", "mc_samples": 2, "adaptive": True}}
    run(body)
    assert _planned(api, body)[1] == 0
    with backend.database.write() as session:
        pieces = stored_outputs.least_recently_used(session, 100)
        samples = next(piece.key for piece in pieces if _holds(backend, piece.key, "mc_probabilities"))
        session.delete(session.get_one(StoredOutput, samples))
    told, _ = _planned(api, body)
    assert [each["shards_stored"] for each in told] == [1, 1]


def _holds(backend: Backend, key: str, tensor: str) -> bool:
    with backend.store.borrowed(key) as file:
        return tensor in load_file(file)


@pytest.mark.parametrize("corpus", [{"texts": ["a", "b"]}, {"dataset": "acme/texts"}])
def test_texts_that_are_no_corpus_yet_are_not_looked_for(api: TestClient, body: Json, corpus: Json) -> None:
    assert _planned(api, body | {"corpus": corpus})[0] == [None, None]
