"""`make demo`: three teachers and an inbox without labels become one student, over the REST API."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.client import MukaClient, MukaClientError
from demo.embedded_service import ServiceNotStartedError, embedded_service, log_tail
from demo.story import Story

NEXT = """
What to try next
  make serve                                the service, to stay: http://127.0.0.1:8000/docs shows its API
  .venv/bin/muka submit TEACHER TEACHER --corpus inbox.txt --wait --download student
                                            your own teachers (folders, or names on the Hub) and texts
  make demo ARGS='--keep'                   keep this demo's teachers, student and service data"""


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep teachers, student and service data.")] = False,
    seed: Annotated[int, typer.Option(help="Another one gives other teachers and another student.")] = 1,
) -> None:
    """See muka do what it exists for, in a few minutes."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")  # torch's threads must not spin where others want the cores
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, soft_wrap=True)
    folder = Path(tempfile.mkdtemp(prefix="muka-demo-"))
    try:
        _tell(console, folder, seed)
        console.print(NEXT, markup=False)
    except KeyboardInterrupt:
        console.print("Stopped.")
        sys.exit(130)
    except (MukaClientError, ServiceNotStartedError) as error:
        console.print(f"\n{error}", style="red", markup=False)
        _show_log(console, folder)
        sys.exit(1)
    except Exception:
        _show_log(console, folder)
        raise
    finally:
        if keep:
            console.print(f"\nKept: {folder}", markup=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _show_log(console: Console, folder: Path) -> None:
    console.print("\nThe service's last words:", log_tail(folder / "service.log"), sep="\n", markup=False)


def _tell(console: Console, folder: Path, seed: int) -> None:
    story = Story(console, folder, seed)
    story.say("Starting `muka serve` on a free port")
    with embedded_service(folder) as service, MukaClient(service.url) as client:
        folders = story.prepare_teachers()
        uploaded, corpus = story.upload(client, folders)
        job = story.amalgamate(client, uploaded, corpus)
        student = story.download(client, job)
        story.compare(folders, student)
    story.say("Done")


if __name__ == "__main__":
    typer.run(demo)
