"""Headers of answers, and those of requests that answers depend on, as the OpenAPI document has them."""

from typing import Any


def described(**headers: str) -> dict[str, Any]:
    """`headers` of a response: each name, with `_` for `-`, and what it tells."""
    return {
        name.replace("_", "-"): {"description": text, "schema": {"type": "string"}}
        for name, text in headers.items()
    }


def _seconds(text: str) -> dict[str, Any]:
    return {"Retry-After": {"description": f"Seconds. {text}", "schema": {"type": "integer"}}}


REQUEST_ID = described(X_Request_Id="Names this request in the service's log.")
ETAG = described(ETag="Of this state; send it as `If-None-Match`.")
RETRY_AFTER = _seconds("Until to look again; absent when the job has ended.")
RETRY_IN_FLIGHT = _seconds("Until to send it again, when an earlier one is in flight.")
NEXT_PAGE = described(Link='`<…>; rel="next"`, when there is a next page.')
REPLAYED = described(Idempotency_Replayed="`true`: the stored answer to an earlier request under this key.")
CREATED = described(Location="Where it is.") | REPLAYED
FILE = described(
    ETag="Of the content; of a single file its sha256.",
    Accept_Ranges="`bytes`",
    Content_Disposition="The name to save it under.",
    Repr_Digest="`sha-256=:…:` over the whole file; not of archives.",
)
PART_OF_FILE = FILE | described(Content_Range="Which bytes, of how many.")
LINKED = described(
    Location="Where the file is.",
    ETag="Of the content: its sha256. The other server has validators of its own.",
    X_Linked_Etag="The same.",
    X_Linked_Size="Of the whole file, in bytes.",
)


def _asked(name: str, text: str, **schema: Any) -> dict[str, Any]:
    schema = {"type": "string"} | schema
    return {"name": name, "in": "header", "required": False, "description": text, "schema": schema}


# Of requests, and declared with the answers to them: 304 and 206.
IF_NONE_MATCH = _asked("If-None-Match", "An `ETag` that you have: 304 while it is still that of the answer.")
RANGE = _asked(
    "Range",
    "One range of bytes, `bytes=1024-` to go on behind the first 1,024. Several ranges, and what says "
    "nothing sensible, are answered with the whole file.",
    examples=["bytes=0-1023"],
)
IF_RANGE = _asked(
    "If-Range", "The `ETag` of the part that you have: the whole file if it is another one now."
)
_OF_PROBLEMS = {
    "401": described(WWW_Authenticate="`Bearer`"),
    "403": described(WWW_Authenticate="With the scope that the key lacks."),
    "416": described(Content_Range="How many bytes there are."),
    **dict.fromkeys(("429", "502", "503", "504"), _seconds("Until to try again.")),
}


def of_problem(status: str) -> dict[str, Any]:
    """What every problem with this status has beside the request's id."""
    return _OF_PROBLEMS.get(status, {})
