import io
import json
import tarfile
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from app.client import Corpus, InputError, Model, MukaClient
from app.client.folder_archive import FolderArchive
from tests.unit.app.client.scripted_server import DROP, Reply, Request, ScriptedServer

MODEL = {"id": "mdl-1", "labels": ["refund", "invoice"]}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    folder = tmp_path / "billing"
    (folder / "checkpoint-500").mkdir(parents=True)
    for name in (
        "config.json",
        "tokenizer.json",
        "vocab.txt",
        "optimizer.pt",
        "training_args.bin",
        "README.md",
    ):
        (folder / name).write_bytes(name.encode())
    (folder / "model.safetensors").write_bytes(b"w" * 200_001)
    (folder / "checkpoint-500" / "model.safetensors").write_bytes(b"old")
    return folder


def parts_of(request: Request) -> dict[str, tuple[str | None, bytes]]:
    """Fields of a multipart body: name -> (file name, content)."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + request.body)
    parts: dict[str, tuple[str | None, bytes]] = {}
    for part in message.walk():
        name = part.get_param("name", header="Content-Disposition")
        if name:
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            parts[str(name)] = (part.get_filename(), content)
    return parts


class TestFolderArchive:
    def test_only_what_a_teacher_needs_is_packed(self, teacher: Path) -> None:
        packed = b"".join(FolderArchive.of(teacher).chunks())
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            assert tar.getnames() == ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
            weights = tar.extractfile("model.safetensors")
            assert weights is not None
            assert weights.read() == b"w" * 200_001

    def test_its_size_is_known_beforehand(self, teacher: Path) -> None:
        archive = FolderArchive.of(teacher)
        assert archive.size_bytes == len(b"".join(archive.chunks()))

    def test_the_same_folder_gives_the_same_bytes(self, teacher: Path) -> None:
        before = b"".join(FolderArchive.of(teacher).chunks())
        (teacher / "config.json").touch()
        assert b"".join(FolderArchive.of(teacher).chunks()) == before

    def test_a_folder_without_config_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"has no config\.json"):
            FolderArchive.of(tmp_path)

    def test_pickled_weights_alone_are_refused_with_the_cure(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
        with pytest.raises(InputError, match=r"save_pretrained\(folder\)"):
            FolderArchive.of(tmp_path)


class TestModels:
    def test_a_folder_arrives_as_a_tar_of_declared_length(
        self, server: ScriptedServer, client: MukaClient, teacher: Path
    ) -> None:
        server.on("POST", "/models", DROP, Reply.of(MODEL, 201))
        assert client.models.upload(teacher) == Model.model_validate(MODEL)
        for request in server.requests:
            name, content = parts_of(request)["file"]
            assert name == "billing.tar"
            assert content == b"".join(FolderArchive.of(teacher).chunks())
            assert int(request.headers["Content-Length"]) == len(request.body)

    def test_an_archive_is_sent_as_it_is(
        self, server: ScriptedServer, client: MukaClient, tmp_path: Path
    ) -> None:
        (tmp_path / "billing.zip").write_bytes(b"PK...")
        server.on("POST", "/models", Reply.of(MODEL, 201))
        client.models.upload(tmp_path / "billing.zip")
        assert parts_of(server.requests[0])["file"] == ("billing.zip", b"PK...")

    def test_a_path_that_is_not_there_is_told_before_anything_is_sent(
        self, server: ScriptedServer, client: MukaClient, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="no folder or archive"):
            client.models.upload(tmp_path / "missing")
        assert server.requests == []


class TestCorpora:
    @pytest.fixture
    def accepting(self, server: ScriptedServer) -> ScriptedServer:
        server.on("POST", "/corpora", Reply.of({"id": "cor-1", "texts": 2}, 201))
        return server

    def test_a_file_is_sent_with_its_name_and_columns(
        self, accepting: ScriptedServer, client: MukaClient, tmp_path: Path
    ) -> None:
        (tmp_path / "inbox.csv").write_text("body,team\nhello,a\n")
        client.corpora.upload(tmp_path / "inbox.csv", text_column="body", label_column="team")
        parts = parts_of(accepting.requests[0])
        assert parts["file"] == ("inbox.csv", b"body,team\nhello,a\n")
        assert (parts["text_column"][1], parts["label_column"][1]) == (b"body", b"team")

    def test_texts_are_sent_as_json_lines(self, accepting: ScriptedServer, client: MukaClient) -> None:
        client.corpora.upload(text for text in ["one\nline", "größer"])
        name, content = parts_of(accepting.requests[0])["file"]
        assert name == "texts.jsonl"
        assert [json.loads(line)["text"] for line in content.splitlines()] == ["one\nline", "größer"]

    def test_an_open_file_needs_a_name(self, accepting: ScriptedServer, client: MukaClient) -> None:
        with pytest.raises(InputError, match=r"give name='texts\.jsonl'"):
            client.corpora.upload(io.BytesIO(b"hello"))
        client.corpora.upload(io.BytesIO(b"hello"), name="inbox.txt")
        assert parts_of(accepting.requests[0])["file"] == ("inbox.txt", b"hello")

    def test_a_file_that_is_not_there_is_told(self, client: MukaClient, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no file"):
            client.corpora.upload(tmp_path / "missing.txt")


class TestBody:
    def test_uploads_and_mappings_become_references(self, server: ScriptedServer, client: MukaClient) -> None:
        server.on("POST", "/amalgamations", Reply.of({"id": "amg-1", "status": "queued"}, 202))
        renamed: dict[str, Any] = {"model": "a/b", "labels": {"LABEL_0": "refund", "other": None}}
        client.amalgamations.create(
            teachers=[Model(id="mdl-1"), renamed, "stu-1"],
            corpus=Corpus(id="cor-1"),
            evaluation="cor-2",
            training={"epochs": 2},
            metadata={"team": "support"},
        )
        assert json.loads(server.requests[0].body) == {
            "teachers": ["mdl-1", renamed, "stu-1"],
            "corpus": "cor-1",
            "evaluation": {"corpus": "cor-2"},
            "training": {"epochs": 2},
            "metadata": {"team": "support"},
        }
