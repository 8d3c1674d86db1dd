"""import-linter reads our own sources only; a fresh interpreter shows what really comes along."""

import json
import subprocess
import sys

import pytest

ENGINE = {
    "alembic",
    "celery",
    "fastapi",
    "huggingface_hub",
    "kombu",
    "pyarrow",
    "redis",
    "sqlalchemy",
    "starlette",
}
TORCH = {"torch", "transformers"}


def modules_after(code: str) -> set[str]:
    """Top-level modules, and ours to any depth, that are loaded after the code has run in a new process."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return {name for name in names if "." not in name or name.startswith(("app.", "worker."))}


@pytest.mark.parametrize(
    ("code", "strangers"),
    [
        pytest.param(
            "from app.main import create_app; create_app()",
            TORCH | {"worker"},
            id="the API never loads torch",
        ),
        pytest.param(
            "from app.services.backend import Backend; from app.settings import Settings\n"
            "Backend.from_settings(Settings())",
            TORCH | {"obstore"},
            id="a store in a folder needs nothing of S3",
        ),
        pytest.param(
            "import app.client", TORCH | ENGINE | {"worker", "app.settings"}, id="the client is light"
        ),
        pytest.param(
            "import app.cli", TORCH | ENGINE | {"worker", "obstore"}, id="the command line starts quickly"
        ),
        pytest.param(
            "from worker.muka import amalgamate",
            {"app", "celery", "fastapi", "sqlalchemy"},
            id="the library needs no service",
        ),
        pytest.param("import worker.celery_app", TORCH | {"fastapi"}, id="an idle worker holds no torch"),
    ],
)
def test_loads_nothing_it_should_not(code: str, strangers: set[str]) -> None:
    assert not modules_after(code) & strangers
