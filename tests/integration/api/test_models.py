"""`/models` over real HTTP, on SQLite and on Postgres, with real models of transformers."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.persistence import amalgamations
from app.persistence.tables import Amalgamation
from app.services.backend import Backend
from app.settings import Settings
from app.storage import ArtifactStore
from tests.live_service import live_service
from tests.tiny_models import make_teacher
from tests.unit.app.ingestion.archives import model_files, safetensors, tar, tar_with, zipped

on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what never reaches the database."""

LABELS = ["refund", "invoice", "late"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_model_bytes": 4 << 20})


@pytest.fixture
def api(settings: Settings) -> Iterator[httpx.Client]:
    with live_service(settings) as client:
        yield client


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a real model."""
    folder = make_teacher(tmp_path_factory.mktemp("teacher") / "model", LABELS)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _upload(api: httpx.Client, content: bytes, filename: str = "m.tar", **fields: str) -> httpx.Response:
    return api.post("/models", files={"file": (filename, content)}, data=fields)


def _nothing_is_left(store: ArtifactStore, folder: Path) -> bool:
    staging = folder / "store" / ".staging"
    return not [*store.list("models")] and not (staging.exists() and list(staging.iterdir()))


def _problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    return problem


def test_an_uploaded_model_loads_with_transformers(
    api: httpx.Client, store: ArtifactStore, teacher: dict[str, bytes]
) -> None:
    extra = {"billing/training_args.bin": b"pickle", "billing/modeling.py": b"import os"}
    content = tar({f"billing/{name}": data for name, data in teacher.items()} | extra, "w:gz")
    answer = _upload(api, content, "billing.tar.gz")
    assert answer.status_code == 201, answer.text
    model = answer.json()
    assert answer.headers["location"] == f"/models/{model['id']}"
    assert model["labels"] == LABELS
    assert (model["placeholder_labels"], model["hint"]) == (False, None)
    assert (model["architecture"], model["model_type"]) == ("BertForSequenceClassification", "bert")
    assert model["ignored_files"] == sorted(extra)
    assert model["name"] == "billing.tar.gz"
    folder = store.local_path(f"models/{model['id']}")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == model["parameters"]
    assert AutoTokenizer.from_pretrained(folder)("hello").input_ids
    assert {path.name for path in folder.iterdir()} == {file["path"] for file in model["files"]}
    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        assert weights.keys()
    shown = api.get(f"/models/{model['id']}").json()
    assert shown == {name: value for name, value in model.items() if name != "ignored_files"}


def test_the_same_content_is_the_same_model(
    api: httpx.Client, store: ArtifactStore, teacher: dict[str, bytes]
) -> None:
    first = _upload(api, tar(teacher))
    second = _upload(api, zipped({f"m/{name}": data for name, data in teacher.items()}), "m.zip", name="x")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert len({key.split("/")[1] for key in store.list("models")}) == 1


@on_one_database
def test_a_raw_body_is_a_model(api: httpx.Client) -> None:
    answer = api.post("/models", content=zipped(model_files()), headers={"Content-Type": "application/zip"})
    assert answer.status_code == 201, answer.text


@on_one_database
def test_placeholders_are_accepted_and_flagged(api: httpx.Client) -> None:
    config = json.loads(model_files()["config.json"])
    del config["id2label"]
    files = model_files() | {"config.json": json.dumps(config | {"num_labels": 3}).encode()}
    model = _upload(api, tar(files)).json()
    assert model["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert model["placeholder_labels"]
    assert '"labels": {"LABEL_0": "refund"}' in model["hint"]
    assert api.get("/models").json()["data"][0]["placeholder_labels"]


@on_one_database
def test_weights_of_other_things_are_left_out(api: httpx.Client, store: ArtifactStore) -> None:
    files = model_files() | {"adapter.safetensors": safetensors({"a": [1]})}
    model = _upload(api, tar(files)).json()
    assert model["ignored_files"] == ["adapter.safetensors"]
    assert not store.exists(f"models/{model['id']}/adapter.safetensors")


def _config(**changes: Any) -> dict[str, bytes]:
    return {"config.json": json.dumps(json.loads(model_files()["config.json"]) | changes).encode()}


def _link() -> bytes:
    member = tarfile.TarInfo("vocab.txt")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return tar_with(member)


def _without(name: str) -> dict[str, bytes]:
    return {other: content for other, content in model_files().items() if other != name}


BAD = {
    "../../etc/passwd": (tar(model_files() | {"../../etc/passwd": b"x"}), "archive_unsafe"),
    "symlink": (_link(), "archive_unsafe"),
    "junk": (b"junk" * 300, "archive_invalid"),
    "no classifier": (tar(model_files() | _config(architectures=["BertModel"])), "teacher_not_classifier"),
    "regression head": (tar(model_files() | _config(id2label={"0": "x"})), "teacher_not_classifier"),
    "multi-label": (
        tar(model_files() | _config(problem_type="multi_label_classification")),
        "teacher_not_classifier",
    ),
    "custom code": (tar(model_files() | _config(auto_map={"AutoModel": "x.Y"})), "teacher_not_classifier"),
    "pickle only": (
        tar(_without("model.safetensors") | {"pytorch_model.bin": b"x"}),
        "teacher_unsafe_format",
    ),
    "no weights": (tar(_without("model.safetensors")), "model_invalid"),
    "no tokenizer": (tar(_without("tokenizer.json")), "model_invalid"),
    "no config": (tar(_without("config.json")), "model_invalid"),
    "cut weights": (
        tar(model_files() | {"model.safetensors": model_files()["model.safetensors"][:-1]}),
        "weights_invalid",
    ),
    "labels like LABEL_0 twice": (
        tar(model_files() | _config(id2label={"0": "LABEL_0", "1": "LABEL_0 "})),
        "teacher_not_classifier",
    ),
}


@on_one_database
@pytest.mark.parametrize("case", BAD)
def test_bad_models_are_refused_and_nothing_is_stored(
    api: httpx.Client, store: ArtifactStore, tmp_path: Path, case: str
) -> None:
    content, code = BAD[case]
    problem = _problem(_upload(api, content), 422, code)
    assert problem["errors"]
    assert str(tmp_path) not in json.dumps(problem)
    assert _nothing_is_left(store, tmp_path)
    assert api.get("/models").json()["data"] == []


@on_one_database
def test_other_archives_are_refused_with_the_list(api: httpx.Client) -> None:
    assert ".tar.gz" in _problem(_upload(api, b"Rar!", "m.rar"), 415, "unsupported_format")["detail"]


@on_one_database
def test_too_large_models_are_refused(api: httpx.Client, store: ArtifactStore, tmp_path: Path) -> None:
    big = model_files() | {"model.safetensors": bytes(5 << 20)}
    for content, name in ((tar(big), "m.tar"), (tar(big, "w:gz"), "m.tgz"), (zipped(big), "m.zip")):
        _problem(_upload(api, content, name), 413, "payload_too_large")
    assert _nothing_is_left(store, tmp_path)


@pytest.mark.parametrize("path", ["/models/mdl-nonsense", f"/models/mdl-{'0' * 32}"])
def test_unknown_ids_are_not_found(api: httpx.Client, path: str) -> None:
    _problem(api.get(path), 404, "not_found")
    _problem(api.delete(path), 404, "not_found")


def test_a_deleted_model_is_gone_with_its_files(api: httpx.Client, store: ArtifactStore) -> None:
    model = _upload(api, tar(model_files())).json()
    assert api.delete(f"/models/{model['id']}").status_code == 204
    _problem(api.get(f"/models/{model['id']}"), 404, "not_found")
    assert [*store.list("models")] == []
    assert _upload(api, tar(model_files())).status_code == 201


def test_a_model_in_use_is_not_deleted(api: httpx.Client, backend: Backend, store: ArtifactStore) -> None:
    model = _upload(api, tar(model_files())).json()
    with backend.database.write() as session:
        job = Amalgamation(
            id=f"amg-{'1' * 32}",
            owner="default",
            recipe={},
            resolved={
                "teachers": [{"object_id": model["id"], "storage_prefix": f"models/{model['id']}"}],
                "student": {"teacher": 0},
            },
            user_metadata={},
        )
        amalgamations.add_all(session, [job])
    _problem(api.delete(f"/models/{model['id']}"), 409, "in_use")
    assert store.exists(f"models/{model['id']}/config.json")


def test_lists_are_paged_by_id(api: httpx.Client) -> None:
    ids = [
        _upload(api, tar(model_files() | {"README.md": b"%d" % number})).json()["id"] for number in range(3)
    ]
    first = api.get("/models", params={"limit": 2, "order": "asc"})
    assert [model["id"] for model in first.json()["data"]] == ids[:2]
    second = api.get(first.links["next"]["url"]).json()
    assert ([model["id"] for model in second["data"]], second["has_more"]) == (ids[2:], False)


@on_one_database
def test_a_body_without_a_length_is_a_model(api: httpx.Client) -> None:
    def stream() -> Iterator[bytes]:
        content = io.BytesIO(tar(model_files()))
        while piece := content.read(100):
            yield piece

    answer = api.post("/models", params={"filename": "m.tar"}, content=stream())
    assert answer.status_code == 201, answer.text
