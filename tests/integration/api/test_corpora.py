"""`/corpora` over real HTTP, on SQLite and on Postgres: uploads, refusals, reading, deleting."""

import gzip
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.persistence import amalgamations
from app.persistence.tables import Amalgamation
from app.services.backend import Backend
from app.settings import Settings
from app.storage import ArtifactStore
from tests.live_service import live_service
from tests.servers import wait_until

on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what never reaches the database."""

TEXTS = ["my card was declined", "where is my parcel", "the invoice is wrong"]
LINES = "\n".join(TEXTS).encode()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_corpus_bytes": 3 << 20, "max_text_chars": 500})


@pytest.fixture
def api(settings: Settings) -> Iterator[httpx.Client]:
    with live_service(settings) as client:
        yield client


def _upload(
    api: httpx.Client, content: Any = LINES, filename: str = "inbox.txt", **fields: str
) -> httpx.Response:
    return api.post("/corpora", files={"file": (filename, content)}, data=fields)


def _stored(store: ArtifactStore) -> list[str]:
    return [*store.list("corpora"), *store.list(".staging-is-hidden")]


def _nothing_is_left(store: ArtifactStore, folder: Path) -> bool:
    staging = folder / "store" / ".staging"
    return not _stored(store) and not (staging.exists() and list(staging.iterdir()))


def _problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    return problem


def test_an_upload_becomes_a_corpus(api: httpx.Client, store: ArtifactStore, tmp_path: Path) -> None:
    answer = _upload(api, LINES + b"\n\n  my card was declined \n")
    corpus = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/corpora/{corpus['id']}"
    assert corpus["name"] == "inbox.txt"
    assert (corpus["texts"], corpus["labelled"]) == (3, False)
    assert corpus["statistics"] == {
        "characters": {"min": 18, "mean": 19.33, "median": 20, "p95": 20, "max": 20},
        "dropped_empty": 1,
        "dropped_duplicates": 1,
        "labels": None,
        "label_conflicts": None,
    }
    assert corpus["expires_at"] > corpus["created_at"]
    assert _stored(store) == [f"corpora/{corpus['id']}.parquet"]
    assert pq.read_table(store.local_path(_stored(store)[0])).to_pydict() == {"text": TEXTS}
    assert corpus["size_bytes"] == store.size(_stored(store)[0])
    assert api.get(f"/corpora/{corpus['id']}").json() == corpus
    wait_until(lambda: not list((tmp_path / "store" / ".staging").iterdir()), "the staging folder is empty")


def test_the_same_content_is_the_same_corpus(api: httpx.Client, store: ArtifactStore) -> None:
    first = _upload(api)
    as_json = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    second = _upload(api, gzip.compress(as_json), "other.jsonl.gz")
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["expires_at"] >= first.json()["expires_at"]
    assert len(_stored(store)) == 1


def test_two_at_once_are_one_corpus(api: httpx.Client, store: ArtifactStore) -> None:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(_upload(api))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(_stored(store)) == 1


@on_one_database
@pytest.mark.parametrize(
    ("query", "content_type", "content"),
    [
        ({"filename": "a.txt"}, "application/x-www-form-urlencoded", LINES),
        ({}, "text/plain; charset=utf-8", LINES),
        ({"format": "jsonl.gz"}, "application/octet-stream", gzip.compress(b'{"text": "a"}\n{"text": "b"}')),
        ({"text_column": "body"}, "text/csv", b"id,body\n1,a\n2,b\n"),
    ],
)
def test_a_raw_body_is_a_corpus(
    api: httpx.Client, query: dict[str, str], content_type: str, content: bytes
) -> None:
    answer = api.post("/corpora", params=query, content=content, headers={"Content-Type": content_type})
    assert answer.status_code == 201, answer.text


def test_a_labelled_corpus_shows_its_labels(api: httpx.Client) -> None:
    rows = b"message,intent\nmy card was declined,card\nwhere is it,parcel\nmy card was declined,other\n"
    answer = _upload(
        api, rows, "gold.csv", text_column="message", label_column="intent", name="held out\n/../x"
    )
    corpus = answer.json()
    assert (corpus["labelled"], corpus["name"]) == (True, "x")
    assert corpus["statistics"]["labels"] == {"card": 1, "parcel": 1}
    assert corpus["statistics"]["label_conflicts"] == 1
    preview = api.get(f"/corpora/{corpus['id']}/preview", params={"limit": 1}).json()
    assert preview == {"data": [{"text": "my card was declined", "label": "card"}]}


@on_one_database
def test_preview_shows_texts_alone_without_labels(api: httpx.Client) -> None:
    corpus = _upload(api).json()
    assert api.get(f"/corpora/{corpus['id']}/preview").json() == {"data": [{"text": t} for t in TEXTS]}


def test_lists_are_paged_by_id(api: httpx.Client) -> None:
    ids = [_upload(api, f"a {number}\nb {number}".encode()).json()["id"] for number in range(3)]
    first = api.get("/corpora", params={"limit": 2})
    page = first.json()
    assert [corpus["id"] for corpus in page["data"]] == ids[:0:-1]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[2], ids[1])
    second = api.get(first.links["next"]["url"]).json()
    assert ([corpus["id"] for corpus in second["data"]], second["has_more"]) == ([ids[0]], False)


BAD = {
    "empty": (b"", "a.txt", "empty_corpus"),
    "blank": (b"\n \n", "a.txt", "empty_corpus"),
    "binary junk": (bytes(range(256)) * 40, "a.txt", "not_text"),
    "binary junk as CSV": (bytes(range(256)) * 40, "a.csv", "not_text"),
    "all duplicates": (b"same\n" * 50, "a.txt", "all_duplicates"),
    "too long": (b"fine\n" + b"x" * 501, "a.txt", "text_too_long"),
    "missing column": (b"body\na\n", "a.csv", "missing_column"),
    "not strings": (b'{"text": 5}', "a.jsonl", "not_a_string"),
    "ragged": (b"text,id\na,1\nb\n", "a.csv", "ragged_row"),
    "broken Parquet": (b"PAR1" * 10, "a.parquet", "invalid_parquet"),
}


@on_one_database
@pytest.mark.parametrize("case", BAD)
def test_bad_corpora_are_refused_and_nothing_is_stored(
    api: httpx.Client, store: ArtifactStore, tmp_path: Path, case: str
) -> None:
    content, name, fault = BAD[case]
    problem = _problem(_upload(api, content, name), 422, "corpus_invalid")
    assert fault in {error["code"] for error in problem["errors"]}
    assert str(tmp_path) not in json.dumps(problem)
    assert _nothing_is_left(store, tmp_path)
    assert api.get("/corpora").json()["data"] == []


@on_one_database
def test_a_broken_line_5000_is_named(api: httpx.Client) -> None:
    lines = [json.dumps({"text": f"text {number}"}) for number in range(1, 6001)]
    lines[4999] = '{"text": "text 5000"'
    problem = _problem(_upload(api, "\n".join(lines).encode(), "a.jsonl"), 422, "corpus_invalid")
    assert [error["pointer"] for error in problem["errors"]] == ["line 5000, column 21"]
    assert "1 error" in problem["detail"]


@on_one_database
def test_wrong_gzip_is_refused(api: httpx.Client) -> None:
    _problem(_upload(api, b"not gzip", "a.txt.gz"), 422, "compression_invalid")


@on_one_database
def test_unknown_formats_are_refused_with_the_list(api: httpx.Client) -> None:
    problem = _problem(_upload(api, LINES, "a.xlsx"), 415, "unsupported_format")
    assert ".parquet" in problem["detail"]


@on_one_database
def test_unknown_fields_of_the_form_are_refused(api: httpx.Client) -> None:
    answer = _upload(api, textcolumn="body", label="x")
    problem = _problem(answer, 422, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == ["/textcolumn", "/label"]


@on_one_database
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x--\r\n",
        b"--x\r\nnonsense",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nno end',
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\ntext\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\na\r\n' * 2
        + b"--x--\r\n",
    ],
)
@pytest.mark.parametrize("boundary", ["; boundary=x", ""])
def test_broken_forms_are_refused(
    api: httpx.Client, store: ArtifactStore, tmp_path: Path, body: bytes, boundary: str
) -> None:
    answer = api.post("/corpora", content=body, headers={"Content-Type": f"multipart/form-data{boundary}"})
    assert answer.status_code == 422
    assert answer.json()["code"] in {"multipart_invalid", "invalid_request"}
    assert _nothing_is_left(store, tmp_path)


@on_one_database
class TestTooLarge:
    def test_a_declared_length_is_refused_before_the_body(self, api: httpx.Client) -> None:
        with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as raw:
            head = (
                "POST /corpora?filename=a.txt HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Length: {10 << 30}\r\nExpect: 100-continue\r\n\r\n"
            )
            raw.sendall(head.encode())
            assert raw.recv(1 << 16).startswith(b"HTTP/1.1 413")

    @pytest.mark.parametrize("form", [True, False])
    def test_an_endless_body_is_refused_while_it_streams(
        self, api: httpx.Client, store: ArtifactStore, tmp_path: Path, form: bool
    ) -> None:
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            if form:
                yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
            while sent < 10 << 30:
                sent += 1 << 16
                yield b"a line of text\n" * 4369 + b"\n"

        headers = {"Content-Type": "multipart/form-data; boundary=x" if form else "text/plain"}
        problem = _problem(api.post("/corpora", content=endless(), headers=headers), 413, "payload_too_large")
        assert "3,145,728" in problem["detail"]
        assert sent < 64 << 20
        assert _nothing_is_left(store, tmp_path)

    def test_a_compressed_bomb_is_refused(
        self, api: httpx.Client, store: ArtifactStore, tmp_path: Path
    ) -> None:
        bomb = gzip.compress(b"".join(b"%0400d\n" % number for number in range(9000)))
        _problem(_upload(api, bomb, "a.txt.gz"), 413, "payload_too_large")
        assert _nothing_is_left(store, tmp_path)


def test_a_client_that_hangs_up_leaves_nothing(
    api: httpx.Client, store: ArtifactStore, tmp_path: Path
) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as raw:
        raw.sendall(
            b"POST /corpora?filename=a.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nhalf"
        )
        staging = tmp_path / "store" / ".staging"
        wait_until(lambda: staging.exists() and list(staging.iterdir()), "the upload has begun")
    wait_until(lambda: _nothing_is_left(store, tmp_path), "the upload is gone")
    assert api.get("/corpora").json()["data"] == []


@pytest.mark.parametrize(
    "path", ["/corpora/cor-nonsense", f"/corpora/cor-{'0' * 32}", "/corpora/mdl-1/preview"]
)
def test_unknown_ids_are_not_found(api: httpx.Client, path: str) -> None:
    _problem(api.get(path), 404, "not_found")
    if not path.endswith("preview"):
        _problem(api.delete(path), 404, "not_found")


def test_a_deleted_corpus_is_gone_with_its_file(api: httpx.Client, store: ArtifactStore) -> None:
    corpus = _upload(api).json()
    assert api.delete(f"/corpora/{corpus['id']}").status_code == 204
    _problem(api.get(f"/corpora/{corpus['id']}"), 404, "not_found")
    assert _stored(store) == []
    assert _upload(api).status_code == 201


def test_a_corpus_in_use_is_not_deleted(api: httpx.Client, backend: Backend, store: ArtifactStore) -> None:
    corpus = _upload(api).json()
    with backend.database.write() as session:
        job = Amalgamation(
            id=f"amg-{'1' * 32}",
            owner="default",
            recipe={},
            resolved={"teachers": [], "student": {}, "corpus_id": corpus["id"]},
            user_metadata={},
        )
        amalgamations.add_all(session, [job])
    _problem(api.delete(f"/corpora/{corpus['id']}"), 409, "in_use")
    assert len(_stored(store)) == 1


@on_one_database
def test_the_key_is_asked_for_before_the_body(settings: Settings) -> None:
    guarded = Settings(**settings.model_dump() | {"api_key": "secret"})
    with live_service(guarded) as api:
        _problem(_upload(api), 401, "unauthorized")
        answer = api.post(
            "/corpora",
            files={"file": ("a.txt", LINES)},
            headers={"Authorization": "Bearer secret"},
        )
        assert answer.status_code == 201


@on_one_database
def test_parquet_goes_in_and_out(api: httpx.Client, store: ArtifactStore) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"body": TEXTS, "n": [1, 2, 3]}), out)
    answer = _upload(api, out.getvalue(), "a.parquet", text_column="body")
    assert answer.status_code == 201, answer.text
    assert answer.json()["texts"] == 3
