"""A client that `openapi-python-client` makes of the document: it is whole, it compiles, and it works.

The generator has an environment of its own, for it pins an older typer than muka uses.
"""

import compileall
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.settings import Settings
from tests.api_objects import add_model
from tests.hub_clients import base_python, install
from tests.live_service import live_service

GENERATOR = "openapi-python-client>=0.29,<0.30"
KEY = "right"
FILES = (
    "application/gzip",
    "application/jsonl",
    "application/vnd.apache.parquet",
    "application/x-ndjson",
    "application/x-tar",
    "application/zip",
    "text/csv",
    "text/plain",
    "text/tab-separated-values",
)
"""Media types that the generator does not know by name: bytes, as any other file."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("generator"), GENERATOR)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What these tests say does not depend on the database."""
    return sqlite_url


@pytest.fixture
def service(settings: Settings) -> Iterator[httpx.Client]:
    with live_service(settings.model_copy(update={"api_key": SecretStr(KEY)})) as client:
        yield client


@pytest.fixture
def document(service: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = service.get("/openapi.json").json()
    return found


@pytest.fixture
def generated(document: dict[str, Any], packages: Path, tmp_path: Path) -> Path:
    """The folder of the generated package `muka_client`."""
    described, config, made = tmp_path / "openapi.json", tmp_path / "config.json", tmp_path / "generated"
    described.write_text(json.dumps(document))
    overrides = dict.fromkeys(FILES, "application/octet-stream")
    config.write_text(json.dumps({"post_hooks": [], "content_type_overrides": overrides}))
    options = ("--path", str(described), "--config", str(config), "--output-path", str(made))
    told = _run(packages, "-m", "openapi_python_client", "generate", *options, "--fail-on-warning")
    assert "warning" not in told.lower(), told
    return made


def _run(packages: Path, *arguments: str, path: Path | None = None) -> str:
    found = [str(each) for each in (packages, path) if each is not None]
    done = subprocess.run(
        [base_python(), "-S", *arguments],  # -S: without the packages of the interpreter itself
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(found), "PYTHONUTF8": "1"},
        cwd=packages,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


_IMPORT = """
import importlib, json, pkgutil, muka_client
names = [each.name for each in pkgutil.walk_packages(muka_client.__path__, "muka_client.")]
for name in names:
    importlib.import_module(name)
print(json.dumps(names))
"""


def test_every_operation_becomes_a_module_that_compiles(
    document: dict[str, Any], generated: Path, packages: Path
) -> None:
    assert compileall.compile_dir(generated, quiet=1)
    modules = {name.rpartition(".")[2] for name in json.loads(_run(packages, "-c", _IMPORT, path=generated))}
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    assert {each["operationId"] for each in operations} <= modules


_CALL = """
import io, json, sys
from muka_client import AuthenticatedClient
from muka_client.api.amalgamations import create_amalgamation, get_amalgamation, list_amalgamations
from muka_client.api.corpora import create_corpus, get_corpus, list_corpora
from muka_client.models import CreateCorpusFilesBody, MukaSpec, Problem, Recipe
from muka_client.types import File

url, key, *teachers = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)
def file():
    return File(io.BytesIO(b"where is my parcel\\nI was charged twice\\n"), file_name="inbox.txt")
corpus = create_corpus.sync(client=client, body=CreateCorpusFilesBody(file=file()))
again = create_corpus.sync_detailed(client=client, body=file(), filename="inbox.txt")
recipe = Recipe(teachers=teachers, corpus=corpus.id, method=MukaSpec(name="muka", mc_samples=4))
job = create_amalgamation.sync(client=client, body=recipe, idempotency_key="once")
missing = get_corpus.sync(corpus_id="cor-" + "0" * 32, client=client)
refused = list_corpora.sync_detailed(client=AuthenticatedClient(base_url=url, token="wrong"))
print(json.dumps({
    "texts": corpus.texts,
    "again": [again.status_code, again.parsed.id == corpus.id],
    "listed": [each.id == corpus.id for each in list_corpora.sync(client=client, limit=5).data],
    "got": get_corpus.sync(corpus_id=corpus.id, client=client).content_sha256 == corpus.content_sha256,
    "job": [job.status, job.recipe.method.mc_samples, job.labels],
    "jobs": [each.id == job.id for each in list_amalgamations.sync(client=client).data],
    "polled": get_amalgamation.sync(job_id=job.id, client=client).id == job.id,
    "missing": [isinstance(missing, Problem), missing.code],
    "refused": [refused.status_code, refused.parsed.code],
}))
"""


def test_it_uploads_submits_lists_and_reads_problems(
    service: httpx.Client, generated: Path, packages: Path, backend: Any
) -> None:
    teachers = [add_model(backend, labels) for labels in (("refund", "invoice"), ("late", "lost"))]
    told = json.loads(_run(packages, "-c", _CALL, str(service.base_url), KEY, *teachers, path=generated))
    assert told == {
        "texts": 2,
        "again": [200, True],
        "listed": [True],
        "got": True,
        "job": ["queued", 4, ["refund", "invoice", "late", "lost"]],
        "jobs": [True],
        "polled": True,
        "missing": [True, "not_found"],
        "refused": [401, "unauthorized"],
    }
