"""What routes ask for, under names: `def get_corpus(backend: BackendDep, owner: OwnerDep)`."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBearer

from app.api.local_names import refuse_strangers
from app.api.scopes import needed_scope
from app.domain.access import Caller
from app.domain.errors import ForbiddenError
from app.services.backend import Backend
from app.services.keys import Keyring
from app.services.live import LiveJobs
from app.services.predictions import Predictions
from app.services.submission import Submissions


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


# `async`, for they wait for nothing: a plain function would cost a thread of the pool each time.
BackendDep = Annotated[Backend, Depends(_backend)]


async def _live(request: Request) -> LiveJobs:
    live: LiveJobs = request.app.state.live
    return live


LiveDep = Annotated[LiveJobs, Depends(_live)]


async def _submissions(request: Request) -> Submissions:
    submissions: Submissions = request.app.state.submissions
    return submissions


SubmissionsDep = Annotated[Submissions, Depends(_submissions)]


async def _predictions(request: Request) -> Predictions:
    predictions: Predictions = request.app.state.predictions
    return predictions


PredictionsDep = Annotated[Predictions, Depends(_predictions)]


class _Door(HTTPBearer):
    """Asks for the key: a scheme of the document and a dependency in one, for every dependency costs time.

    `app.main` puts it before every router but health: a route that asks for nobody is guarded all the same.
    """

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]  # what a key opens
        """Who sends the request, with a key that may do what the route does.

        Raises:
            UnauthorizedError: no key, or one that nobody has.
            ForbiddenError: the key's scopes do not cover it.
            HostNotAllowedError: no key is asked for, and it is a stranger's page that sends it.
        """
        keyring: Keyring = request.app.state.keyring
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip() if kind.lower() == "bearer" else ""
        found = keyring.remembered(key)
        if found is None:
            found = await run_in_threadpool(keyring.caller, key)
        if not found.has_key:
            backend: Backend = request.app.state.backend
            refuse_strangers(request.headers, backend.settings.allowed_hosts)
        scope = needed_scope(request.scope["route"], request.method)
        if not found.may(scope):
            raise ForbiddenError(scope)
        request.state.caller = found
        return found


caller = _Door(
    scheme_name="HTTPBearer",
    auto_error=False,
    description="An API key: made by `muka keys create`, or that of the setting MUKA_API_KEY.",
)
CallerDep = Annotated[Caller, Depends(caller)]


async def owner(request: Request) -> str:
    """Whose objects there are for a request that came through the door; every query is given it."""
    found: Caller = request.state.caller
    return found.owner


OwnerDep = Annotated[str, Depends(owner)]
