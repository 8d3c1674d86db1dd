"""The README tells the truth: every setting, target and Python line that it shows is there."""

import ast
import re
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def _shown(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_is_told(field: str) -> None:
    assert f"`MUKA_{field.upper()}`" in README


def test_every_told_setting_is_there() -> None:
    told = set(re.findall(r"\bMUKA_([A-Z_]+)", README))
    assert told <= {field.upper() for field in Settings.model_fields}


def test_every_told_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    told = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"`[^`]+`", README) + _shown("sh"))))
    benchmarks = {target for target in told if target.startswith("bench-")}
    modules = [target.removeprefix("bench-").replace("-", "_") for target in benchmarks]
    assert told - benchmarks <= targets
    assert all((ROOT / "benchmarks" / f"{module}.py").exists() for module in modules)


@pytest.mark.parametrize("block", _shown("python"))
def test_python_is_python(block: str) -> None:
    ast.parse(block)
