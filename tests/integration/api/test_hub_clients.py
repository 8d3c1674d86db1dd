"""The Hub door, asked by the Hub's own clients of three generations, each in an environment of its own."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.domain.status import Status
from app.services.backend import Backend
from app.settings import Settings
from app.storage import ArtifactStore, configured_store
from tests.api_objects import add_checkpoint, add_student, model_files
from tests.hub_clients import RELEASES, HubClient, install
from tests.jobs import add_job
from tests.live_service import live_service

KEY = "right"
Advance = Callable[..., None]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Path]]]:
    """All of them are fetched at once."""
    root = tmp_path_factory.mktemp("clients")
    with ThreadPoolExecutor(len(RELEASES)) as threads:
        yield {name: threads.submit(install, root / name, *packages) for name, packages in RELEASES.items()}


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """What these tests say does not depend on the database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def kept_in() -> str:
    """Where the service has its files; some tests ask for a bucket, too."""
    return "folder"


in_both = pytest.mark.parametrize("kept_in", ["folder", "bucket"])


@pytest.fixture
def settings(settings: Settings, kept_in: str, request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if kept_in == "folder":
        return settings
    in_bucket = {"store_dir": None, "store_url": request.getfixturevalue("bucket_url")}
    return settings.model_copy(update={**in_bucket, "scratch_dir": tmp_path / "scratch"})


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return configured_store(settings)


@pytest.fixture
def service(settings: Settings) -> Iterator[httpx.Client]:
    """With a key: everything in it is private."""
    with live_service(settings.model_copy(update={"api_key": SecretStr(KEY)})) as client:
        yield client


@pytest.fixture(params=RELEASES)
def client(
    request: pytest.FixtureRequest,
    service: httpx.Client,
    installed: dict[str, Future[Path]],
    tmp_path: Path,
) -> HubClient:
    packages = installed[request.param].result()
    return HubClient(packages, f"{service.base_url}/hub", tmp_path / "home", KEY)


@pytest.fixture
def job_id(backend: Backend, advance: Advance) -> str:
    """A job whose student and two checkpoints are published."""
    made = add_job(backend.database)
    for step in (100, 200):
        add_checkpoint(backend, made, step)
    student = add_student(backend, model_files(("refund", "invoice", "late"), "the student"), job_id=made)
    advance(made, Status.SUCCEEDED, student_id=student)
    return made


_FETCH = """
import json, pathlib, sys
from huggingface_hub import HfApi, hf_hub_download, list_repo_files, snapshot_download
name = sys.argv[1]
def fetched(revision):
    folder = pathlib.Path(snapshot_download(name, revision=revision))
    return {"commit": folder.name, "weights": (folder / "model.safetensors").read_text(),
            "files": sorted(path.name for path in folder.iterdir())}
refs = HfApi().list_repo_refs(name)
main, step = fetched(None), fetched("step-200")
print(json.dumps({
    "main": main,
    "step-200": step,
    "by its commit": fetched(step["commit"]),
    "branches": {each.name: each.target_commit for each in refs.branches},
    "tags": {each.name: each.target_commit for each in refs.tags},
    "one": open(hf_hub_download(name, "config.json", revision="step-100")).read(),
    "listed": sorted(list_repo_files(name, revision="step-200")),
    "sha": HfApi().model_info(name, revision="step-200").sha,
    "sizes": [each.size for each in HfApi().model_info(name, files_metadata=True).siblings],
}))
"""


@in_both
def test_main_is_the_student_and_a_checkpoint_is_a_revision(client: HubClient, job_id: str) -> None:
    told: dict[str, Any] = client.python(_FETCH, f"students/{job_id.replace('amg', 'stu')}")
    assert told["main"]["weights"] == "weights of the student"
    assert told["step-200"]["weights"] == f"weights of {job_id} at step 200"
    assert told["by its commit"] == told["step-200"]
    assert told["branches"] == {"main": told["main"]["commit"]}
    assert list(told["tags"]) == ["step-200", "step-100"]
    assert told["tags"]["step-200"] == told["sha"] == told["step-200"]["commit"]
    assert (
        told["listed"] == told["step-200"]["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    )
    assert "BertForSequenceClassification" in told["one"]
    assert min(told["sizes"]) > 0


@in_both
def test_the_command_line_downloads_a_revision(client: HubClient, job_id: str, tmp_path: Path) -> None:
    name = f"students/{job_id.replace('amg', 'stu')}"
    client.hf("download", name, "--revision", "step-100", "--local-dir", str(tmp_path / "model"))
    assert (tmp_path / "model" / "model.safetensors").read_text() == f"weights of {job_id} at step 100"


_REFUSED = """
import json, sys
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
def raised(call):
    try:
        call()
    except HfHubHTTPError as error:
        return type(error).__name__, error.response.status_code
    return None
name = sys.argv[1]
print(json.dumps([
    raised(lambda: HfApi(token="wrong").model_info(name)),
    raised(lambda: HfApi(token=False).model_info(name)),
    raised(lambda: HfApi().model_info(name, revision="step-300")),
    raised(lambda: HfApi().model_info("students/stu-" + "0" * 32)),
]))
"""


def test_what_is_not_there_or_private_raises_the_client_s_own_errors(client: HubClient, job_id: str) -> None:
    told = client.python(_REFUSED, f"students/{job_id.replace('amg', 'stu')}")
    assert [status for _, status in told] == [401, 401, 404, 404]
    assert [kind for kind, _ in told[2:]] == ["RevisionNotFoundError", "RepositoryNotFoundError"]


class TestNewest:
    @pytest.fixture
    def client(self, service: httpx.Client, installed: dict[str, Future[Path]], tmp_path: Path) -> HubClient:
        packages = installed["newest"].result()
        return HubClient(packages, f"{service.base_url}/hub", tmp_path / "home", KEY)

    def test_the_cache_is_verified_against_the_service(self, client: HubClient, job_id: str) -> None:
        name = f"students/{job_id.replace('amg', 'stu')}"
        for revision in ("main", "step-200"):
            client.hf("download", name, "--revision", revision)
            assert "Verified 3 file(s)" in client.hf("cache", "verify", name, "--revision", revision)
