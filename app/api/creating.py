"""POSTs that create: where the object is, and whether an earlier request under the same key created it."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from app.services.idempotency import Answer


def answer_created(answer: Answer, collection: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer, fresh or replayed. `collection`: the path under which the object is."""
    told = {"Location": f"{collection}/{answer.resource_id}", **(headers or {})}
    if answer.replayed:
        told["Idempotency-Replayed"] = "true"
    return JSONResponse(answer.content, answer.status, told)
