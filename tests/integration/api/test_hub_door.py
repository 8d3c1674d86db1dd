"""The service as a Hugging Face Hub, asked by the real clients over real HTTP, in processes of their own."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.domain.identifiers import student_of
from app.services.backend import Backend
from app.settings import Settings
from tests.api_objects import add_checkpoint, add_student
from tests.jobs import add_job
from tests.live_service import live_service
from tests.tiny_models import make_teacher

WEIGHTS = bytes(range(256)) * 1000
FILES = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "README.md": b"# student",
    "pictures/choice.svg": b"<svg/>",
}


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """What these tests say does not depend on the database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def service(settings: Settings) -> Iterator[httpx.Client]:
    with live_service(settings) as client:
        yield client


@pytest.fixture
def student(backend: Backend) -> str:
    return add_student(backend, FILES)


def _run(service: httpx.Client, tmp_path: Path, program: str, *arguments: str, **environment: str) -> Any:
    """A Python program, as a user would write it, which prints JSON."""
    hub = {"HF_ENDPOINT": f"{service.base_url}/hub", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **hub, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


_SNAPSHOT = """
import json, pathlib, sys
from huggingface_hub import HfApi, list_repo_files, snapshot_download
folder = pathlib.Path(snapshot_download(sys.argv[1]))
info = HfApi().model_info(sys.argv[1], files_metadata=True)
print(json.dumps({
    "commit": folder.name,
    "files": {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()},
    "listed": sorted(list_repo_files(sys.argv[1])),
    "tag": info.pipeline_tag,
    "sha": info.sha,
    "sha256": {s.rfilename: s.lfs.sha256 for s in info.siblings},
    "branches": [b.name for b in HfApi().list_repo_refs(sys.argv[1]).branches],
}))
"""


def test_the_hubs_client_fetches_a_whole_student(service: httpx.Client, student: str, tmp_path: Path) -> None:
    told = _run(service, tmp_path, _SNAPSHOT, f"students/{student}")
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    commit = hashlib.sha1(lines.encode()).hexdigest()
    assert told["commit"] == told["sha"] == commit
    assert told["files"] == {path: len(content) for path, content in FILES.items()}
    assert told["listed"] == sorted(FILES)
    assert told["sha256"] == digests
    assert (told["tag"], told["branches"]) == ("text-classification", ["main"])


def test_the_hubs_command_line_downloads_and_verifies(
    service: httpx.Client, student: str, tmp_path: Path
) -> None:
    hub = {"HF_ENDPOINT": f"{service.base_url}/hub", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    hf = str(Path(sys.executable).with_name("hf"))
    for command in (["download"], ["cache", "verify"]):
        done = subprocess.run(
            [hf, *command, f"students/{student}"],
            env={**os.environ, **hub},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert f"Verified {len(FILES)} file(s)" in done.stdout


_LOAD = """
import json, sys
from transformers import pipeline
print(json.dumps(pipeline("text-classification", sys.argv[1])("refund invoice")))
"""


def test_three_lines_of_python_classify_with_a_student(
    service: httpx.Client, backend: Backend, tmp_path: Path
) -> None:
    folder = make_teacher(tmp_path / "student", ("refund", "invoice"), seed=1)
    student = add_student(backend, {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()})
    ((answer,),) = [_run(service, tmp_path, _LOAD, f"students/{student}")]
    assert answer["label"] in {"refund", "invoice"}


_ERRORS = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
def raised(call):
    try:
        call()
    except HfHubHTTPError as error:
        return type(error).__name__, error.response.status_code, error.server_message
name = sys.argv[1]
print(json.dumps([
    raised(lambda: HfApi().model_info("students/stu-" + "0" * 32)),
    raised(lambda: HfApi().model_info("acme/" + name[9:])),
    raised(lambda: HfApi().dataset_info(name)),
    raised(lambda: HfApi().model_info(name, revision="step-7")),
    raised(lambda: hf_hub_download(name, "nothing.json")),
    raised(lambda: list(HfApi().list_repo_tree(name, "nowhere"))),
]))
"""


def test_what_is_missing_raises_the_hubs_own_errors(
    service: httpx.Client, student: str, tmp_path: Path
) -> None:
    told = _run(service, tmp_path, _ERRORS, f"students/{student}")
    kinds = ["RepositoryNotFoundError"] * 3 + ["RevisionNotFoundError"] + ["RemoteEntryNotFoundError"] * 2
    assert [(kind, status) for kind, status, _ in told] == [(kind, 404) for kind in kinds]
    assert "this hub has students" in told[0][2]


_KEY = """
import json, sys
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
try:
    print(json.dumps(HfApi().model_info(sys.argv[1]).id))
except HfHubHTTPError as error:
    print(json.dumps([error.response.status_code, str(error.server_message)]))
"""


def test_the_services_key_comes_as_hf_token(settings: Settings, student: str, tmp_path: Path) -> None:
    locked = settings.model_copy(update={"api_key": SecretStr("right")})
    with live_service(locked) as service:
        name = f"students/{student}"
        assert _run(service, tmp_path, _KEY, name, HF_TOKEN="right") == name
        for environment in ({"HF_TOKEN": "wrong"}, {}):
            status, message = _run(service, tmp_path, _KEY, name, **environment)
            assert (status, message) == (401, "Invalid credentials in Authorization header")


def test_another_owners_student_does_not_exist(service: httpx.Client, backend: Backend) -> None:
    foreign = add_student(backend, FILES, owner="other")
    for path in (f"/hub/api/models/students/{foreign}", f"/hub/students/{foreign}/resolve/main/config.json"):
        answer = service.get(path)
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")


class TestTheWire:
    def test_head_tells_commit_etag_and_length(self, service: httpx.Client, student: str) -> None:
        url = f"/hub/students/{student}/resolve/main/model.safetensors"
        answer = service.head(url, headers={"Accept-Encoding": "identity"})
        assert answer.status_code == 200
        assert answer.headers["etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
        assert answer.headers["content-length"] == str(len(WEIGHTS))
        commit = answer.headers["x-repo-commit"]
        assert service.head(url.replace("main", commit)).headers["x-repo-commit"] == commit
        assert not any(name.startswith("x-xet") for name in answer.headers)

    def test_a_range_is_answered_with_the_commit(self, service: httpx.Client, student: str) -> None:
        url = f"/hub/students/{student}/resolve/main/model.safetensors"
        answer = service.get(url, headers={"Range": "bytes=1000-"})
        assert (answer.status_code, answer.content) == (206, WEIGHTS[1000:])
        assert len(answer.headers["x-repo-commit"]) == 40
        behind = service.get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"})
        assert (behind.status_code, behind.json().keys()) == (416, {"error"})

    def test_the_tree_has_folders_unless_it_is_recursive(self, service: httpx.Client, student: str) -> None:
        url = f"/hub/api/models/students/{student}/tree/main"
        top = {entry["path"]: entry["type"] for entry in service.get(url).json()}
        assert top == {
            "README.md": "file",
            "config.json": "file",
            "model.safetensors": "file",
            "pictures": "directory",
        }
        inside = service.get(f"{url}/pictures").json()
        assert [entry["path"] for entry in inside] == ["pictures/choice.svg"]
        whole = service.get(f"{url}?recursive=true").json()
        assert {e["path"] for e in whole} == {*FILES, "pictures"}

    def test_errors_are_in_the_hubs_form_also_for_what_is_nowhere(self, service: httpx.Client) -> None:
        for method, path, status in (
            ("GET", "/hub/gpt2/resolve/main/config.json", 404),
            ("GET", "/hub/api/models/gpt2", 404),
            ("GET", "/hub/api/models/a/b/revision/\u2028", 404),
            ("POST", "/hub/api/models/a/b", 405),
            ("GET", "/hub/students/..%2f..%2fetc/resolve/main/passwd", 404),
        ):
            answer = service.request(method, path)
            assert (answer.status_code, answer.json().keys()) == (status, {"error"}), path
            assert answer.headers["x-error-message"].isascii()


class TestRevisions:
    @pytest.fixture
    def training(self, backend: Backend) -> str:
        """A job that has saved two checkpoints so far."""
        job_id = add_job(backend.database)
        for step in (100, 200):
            add_checkpoint(backend, job_id, step)
        return job_id

    def test_a_training_has_tags_and_no_main_yet(self, service: httpx.Client, training: str) -> None:
        url = f"/hub/api/models/students/{student_of(training)}"
        refs = service.get(f"{url}/refs").json()
        assert [each["ref"] for each in refs["tags"]] == ["refs/tags/step-200", "refs/tags/step-100"]
        assert refs["branches"] == []
        answer = service.get(url)
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RevisionNotFound")
        assert "it has step-200, step-100" in answer.json()["error"]
        assert service.get(f"{url}/revision/step-200").json()["sha"] == refs["tags"][0]["targetCommit"]

    def test_a_student_kept_by_a_cancel_is_main_and_its_checkpoint_the_same_commit(
        self, service: httpx.Client, training: str
    ) -> None:
        service.post(f"/amalgamations/{training}/cancel", json={"keep_best": True})
        refs = service.get(f"/hub/api/models/students/{student_of(training)}/refs").json()
        [main], [newest, _] = refs["branches"], refs["tags"]
        assert main["targetCommit"] == newest["targetCommit"]

    def test_without_its_job_a_student_has_main_only(self, service: httpx.Client, training: str) -> None:
        service.post(f"/amalgamations/{training}/cancel", json={"keep_best": True})
        assert service.delete(f"/amalgamations/{training}").status_code == 204
        url = f"/hub/students/{student_of(training)}/resolve"
        assert service.get(f"{url}/main/model.safetensors").text.endswith("at step 200")
        gone = service.get(f"{url}/step-200/model.safetensors")
        assert (gone.status_code, gone.headers["x-error-code"]) == (404, "RevisionNotFound")
