"""How many connections `muka serve` may have open."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
_PROGRAM = """
import resource
from app.cli.http_server import _allow_many_connections
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, ({few}, {most}))
_allow_many_connections()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("few", "most", "allowed"), [(256, 512, 512), (400, 400, 400)])
def test_as_many_as_the_administrator_allows(few: int, most: int, allowed: int) -> None:
    assert _limits(few, most) == (allowed, most)


def test_but_no_more_than_are_of_use_and_no_fewer_than_there_were() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_many = most == resource.RLIM_INFINITY or most > 65_536
    assert _limits(256, most) == (65_536 if is_many else most, most)
    assert _limits(most, most) == (most, most)


def _limits(few: int, most: int) -> tuple[int, int]:
    program = _PROGRAM.format(few=few, most=most)
    told = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    few, most = map(int, told.split())
    return few, most
