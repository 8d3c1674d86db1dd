"""What the API process costs: it is small, and never loads what only the worker needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.service import ROOT

_PROGRAM = """
import asyncio, json, pathlib, resource, sys
import httpx
from app.main import create_app

def peak_bytes():
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: on Linux it begins with what the process that started this one had.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

async def main():
    app = create_app()
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            health = (await client.get("/healthz")).status_code
            pages = [(await client.get(path)).status_code for path in ("/openapi.json", "/amalgamations")]
    print(json.dumps({
        "health": health,
        "pages": pages,
        "peak_bytes": peak_bytes(),
        "foreign": sorted({"torch", "transformers", "worker", "pandas"} & set(sys.modules)),
    }))

asyncio.run(main())
"""


def test_it_is_small_and_without_torch(sqlite_url: str, redis_url: str, tmp_path: Path) -> None:
    settings = {
        "MUKA_DATA_DIR": str(tmp_path),
        "MUKA_DATABASE_URL": sqlite_url,
        "MUKA_BROKER_URL": redis_url,
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    measured = json.loads(done.stdout)
    assert (measured["health"], measured["pages"]) == (200, [200, 200])
    assert measured["foreign"] == []
    assert measured["peak_bytes"] < 150e6
    sys.stdout.write(done.stdout)
