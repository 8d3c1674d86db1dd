"""The wheel holds what it must, and each extra suffices for what it promises."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout is unpacked, as an installer does."""
    built = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True, stdin=subprocess.DEVNULL
    )
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(next(built.glob("muka-*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def test_wheel_holds_every_source_and_nothing_else(installed: Path) -> None:
    tops = {path.name for path in installed.iterdir()}
    assert tops == {"app", "worker", "migrations", f"muka-{metadata.version('muka')}.dist-info"}
    for top in ("app", "worker", "migrations"):
        sources = {path.relative_to(ROOT) for path in (ROOT / top).rglob("*.py")}
        assert sources <= {path.relative_to(installed) for path in (installed / top).rglob("*")}


@pytest.mark.parametrize("name", ["migrations/script.py.mako", "migrations/versions/0001_initial.py"])
def test_wheel_holds_what_migrations_need(installed: Path, name: str) -> None:
    assert (installed / name).is_file()


def test_wheel_names_its_licence_and_command(installed: Path) -> None:
    (info,) = installed.glob("*.dist-info")
    assert "Apache License" in (info / "licenses" / "LICENSE").read_text()
    assert "muka = app.cli:main" in (info / "entry_points.txt").read_text()


@pytest.mark.parametrize(
    ("extras", "code"),
    [
        pytest.param([], "import app.client, app.cli", id="base: the client and the command line"),
        pytest.param(["api"], "from app.main import create_app; create_app()", id="api: without torch"),
        pytest.param(
            ["worker"], "import worker.tasks, worker.run_amalgamation", id="worker: without FastAPI"
        ),
    ],
)
def test_extra_suffices(installed: Path, extras: list[str], code: str) -> None:
    """Everything that the extra does not bring along is made impossible to import."""
    brought = _distributions(Requirement(f"muka[{','.join(extras)}]"), installed)
    absent = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not brought & {canonicalize_name(owner) for owner in owners}
    ]
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n{code}\nimport app; print(app.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=installed,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(installed / "app" / "__init__.py")


def _distributions(wanted: Requirement, installed: Path) -> set[str]:
    """Names of all that `pip install` brings along for the requirement, as far as it is installed here."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [wanted]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        asked = {(name, extra) for extra in ("", *requirement.extras)}
        if asked <= seen:
            continue
        seen |= asked
        distribution = _distribution(name, installed)
        if distribution is None:  # for another platform, or another Python
            continue
        found.add(name)
        waiting += _needs(distribution, [extra for _, extra in asked])
    return found


def _distribution(name: str, installed: Path) -> metadata.Distribution | None:
    path = [str(installed)] if name == "muka" else sys.path
    return next(iter(metadata.distributions(name=name, path=path)), None)


def _needs(distribution: metadata.Distribution, extras: Iterable[str]) -> list[Requirement]:
    needs = [Requirement(line) for line in distribution.requires or []]
    return [
        n for n in needs if n.marker is None or any(n.marker.evaluate({"extra": extra}) for extra in extras)
    ]
