"""What routes ask for, under names: `def get_corpus(backend: BackendDep, owner: OwnerDep)`."""

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.domain.errors import UnauthorizedError
from app.services.backend import Backend
from app.services.live import LiveJobs

OWNER = "default"
"""All objects belong to one owner until keys with owners come."""

_bearer = HTTPBearer(auto_error=False, description="The key of the setting MUKA_API_KEY.")


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


# `async`, for they wait for nothing: a plain function would cost a thread of the pool each time.
BackendDep = Annotated[Backend, Depends(_backend)]


async def _live(request: Request) -> LiveJobs:
    live: LiveJobs = request.app.state.live
    return live


LiveDep = Annotated[LiveJobs, Depends(_live)]


async def _owner(
    backend: BackendDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    expected = backend.settings.api_key
    if expected is None:
        return OWNER
    given = credentials.credentials if credentials else ""
    if not hmac.compare_digest(given.encode(), expected.get_secret_value().encode()):
        raise UnauthorizedError("send the service's API key as the header `Authorization: Bearer <key>`")
    return OWNER


OwnerDep = Annotated[str, Depends(_owner)]
