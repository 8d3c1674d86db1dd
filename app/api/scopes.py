"""Which scope a route needs: its method tells, unless the route does (`openapi_extra=FOR_READERS`)."""

from typing import Any

from starlette.routing import BaseRoute

from app.domain.access import SAFE_METHODS, Scope

_TOLD = "x-muka-scope"
FOR_READERS = {_TOLD: Scope.READ}
"""Of a POST that changes nothing."""
FOR_ADMINS = {_TOLD: Scope.ADMIN}
"""Of what concerns the whole service, not one owner."""


def needed_scope(route: BaseRoute, method: str) -> Scope:
    """Of this method of the route."""
    told: dict[str, Any] = getattr(route, "openapi_extra", None) or {}
    return Scope(told.get(_TOLD) or (Scope.READ if method in SAFE_METHODS else Scope.WRITE))


def take_told(operation: dict[str, Any], method: str) -> Scope:
    """The same from an operation of the OpenAPI document, which then has no `x-muka-scope` any more."""
    return Scope(operation.pop(_TOLD, Scope.READ if method.upper() in SAFE_METHODS else Scope.WRITE))
