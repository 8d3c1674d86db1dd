"""One run of schemathesis against an installation: what it sent, and what it says of the answers."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.contract.installation import Installation

HERE = Path(__file__).parent
LIMIT_SECONDS = 1200


@dataclass(frozen=True)
class Campaign:
    """What came of it."""

    failed: bool
    told: str
    """Schemathesis' own report: every failure with its request, and the seed at the end."""
    answers: Counter[int]
    """Generated requests by the status of their answers."""
    operations: frozenset[str]
    """That were asked: `GET /corpora`."""


def campaign(made: Installation, folder: Path, *, seed: int, options: tuple[str, ...] = ()) -> Campaign:
    """Send generated requests, with all checks on; nothing is raised for what they find."""
    auth, events = folder / "auth.json", folder / "events.ndjson"
    auth.write_text(json.dumps({"auth": [_identity(*each) for each in zip(PEERS, made.keys, strict=True)]}))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"),
        *(f"{made.url}/openapi.json", "--checks", "all", "--seed", str(seed), "--no-color"),
        *("--report", "ndjson", "--report-ndjson-path", str(events), *options),
    ]
    environment = {
        "PYTHONPATH": str(HERE.parents[1]),
        "SCHEMATHESIS_HOOKS": "tests.contract.hooks",
        "MUKA_CONTRACT_AUTH": str(auth),
        "MUKA_CONTRACT_STOCK": json.dumps(asdict(made.stock)),
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=LIMIT_SECONDS,
    )
    recorders = list(_recorders(events))
    answers = Counter(each["response"]["status_code"] for one in recorders for each in _answered(one))
    operations = frozenset(one["label"] for one in recorders if _answered(one))
    return Campaign(done.returncode != 0, done.stdout, answers, operations)


PEERS = ("first", "second")
"""As `schemathesis.toml` calls them."""


def _identity(name: str, key: str) -> dict[str, Any]:
    return {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}


def _recorders(events: Path) -> Iterator[dict[str, Any]]:
    with events.open(encoding="utf-8") as lines:
        for line in lines:
            finished = json.loads(line).get("ScenarioFinished")
            if finished is not None:
                yield finished["recorder"]


def _answered(recorder: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in recorder.get("interactions", {}).values() if each.get("response")]
