import subprocess
import sys
import types

import app.client


def test_the_public_surface_is_exactly_all() -> None:
    public = {
        name
        for name, value in vars(app.client).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(app.client.__all__)


def test_every_error_is_a_muka_client_error() -> None:
    errors = [getattr(app.client, name) for name in app.client.__all__ if name.endswith("Error")]
    assert all(issubclass(error, app.client.MukaClientError) for error in errors)


def test_the_client_loads_neither_web_framework_nor_database_nor_torch() -> None:
    heavy = ("fastapi", "starlette", "sqlalchemy", "celery", "torch", "transformers", "worker")
    code = f"import sys, app.client; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
