"""Parameters that many routes take, under names."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlencode

from fastapi import Header, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.api.schemas import Page
from app.domain.errors import Fault, InvalidRequestError

JobId = Annotated[str, Path(description="`amg-…`")]
Limit = Annotated[int, Query(ge=1, le=100, description="Objects a page.")]
After = Annotated[
    str | None,
    Query(pattern=r"^[a-z]{3}-[0-9a-f]{32}$", description="Id of the last object of the page before."),
]
Order = Annotated[Literal["asc", "desc"], Query(description="`desc`: the newest first.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Repeating a POST with the same key and body within 24 h gives the stored answer.",
        max_length=255,
        # Shown only: the use case says what is wrong in its own words.
        json_schema_extra={"minLength": 1, "pattern": "^[ -~]*$"},
    ),
]

_WITHOUT_NUL = "^[^\\u0000]*$"
METADATA_FILTER: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "style": "deepObject",
            "explode": True,
            "required": False,
            "description": "Only jobs with this in their metadata: `metadata[team]=support`.",
            "schema": {
                "type": "object",
                "additionalProperties": {"type": "string", "maxLength": 512, "pattern": _WITHOUT_NUL},
                "propertyNames": {"minLength": 1, "maxLength": 64, "pattern": _WITHOUT_NUL},
            },
        }
    ]
}
"""What `metadata_filter` reads, as the OpenAPI document has it."""
_METADATA = re.compile(r"metadata\[(?P<key>.{1,64})\]", re.DOTALL)
Row = TypeVar("Row")
Shown = TypeVar("Shown", bound=BaseModel)


def metadata_filter(request: Request) -> dict[str, str]:
    """`?metadata[team]=support`; several must all match.

    Raises:
        InvalidRequestError: a key or value that no metadata can have.
    """
    wanted = {m["key"]: value for k, value in request.query_params.items() if (m := _METADATA.fullmatch(k))}
    if any("\0" in text for pair in wanted.items() for text in pair):
        fault = Fault("query metadata", "nul_character", "must not hold the character U+0000; remove it")
        raise InvalidRequestError("the filter cannot match anything", faults=[fault])
    return wanted


def show_page(
    *,
    request: Request,
    response: Response,
    rows: Sequence[Row],
    limit: int,
    shown: Callable[[Row], Shown],
    page: Callable[..., Page[Shown]],
) -> Page[Shown]:
    """The first `limit` of up to `limit + 1` rows, with `Link: rel="next"` when there are more."""
    items: list[Any] = [shown(row) for row in rows[:limit]]
    first, last = (items[0].id, items[-1].id) if items else (None, None)
    has_more = len(rows) > limit
    if has_more:
        response.headers["Link"] = link_to_next(request, last)
    return page(data=items, has_more=has_more, first_id=first, last_id=last)


def link_to_next(request: Request, last: object) -> str:
    """The same request for what comes behind the last object, as the header `Link` has it."""
    query = [(k, v) for k, v in request.query_params.multi_items() if k != "after"]
    return f'<{request.url.path}?{urlencode([*query, ("after", last)])}>; rel="next"'
