"""`muka predict`: ask a student about texts."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import typer

from app.cli.client_session import URL, JsonOption, KeyOption, UrlOption, session
from app.client import Prediction
from app.domain.prediction import MAX_TEXTS


def predict(
    student_id: Annotated[
        str, typer.Argument(metavar="STUDENT", help="Id of the student, stu-….", show_default=False)
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="By default the lines of stdin.", show_default=False),
    ] = None,
    *,
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to tell of each text.")] = 1,
    as_json: JsonOption = False,
    url: UrlOption = URL,
    api_key: KeyOption = None,
) -> None:
    """Classify texts on the service: a line with labels and probabilities for each."""
    tell = _as_json if as_json else _as_line
    wanted = iter(texts) if texts else _lines()
    with session(url, api_key) as client:
        while some := list(islice(wanted, MAX_TEXTS)):
            said = client.students.predict(student_id, some, top_k=top_k)
            for text, prediction in zip(some, said.data, strict=True):
                typer.echo(tell(text, prediction))


def _lines() -> Iterator[str]:
    """Of stdin, without the empty ones."""
    return (text for line in sys.stdin if (text := line.strip()))


def _as_line(text: str, prediction: Prediction) -> str:
    told = "  ".join(f"{each.label} {100 * each.probability:.1f} %" for each in prediction.top)
    return f"{told}\t{text}{' (its end was not read)' if prediction.truncated else ''}"


def _as_json(text: str, prediction: Prediction) -> str:
    return json.dumps({"text": text, **prediction.model_dump()}, ensure_ascii=False)
