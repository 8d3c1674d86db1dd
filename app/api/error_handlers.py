"""Errors as RFC 9457 problems (`application/problem+json`), for ours, FastAPI's and Starlette's alike."""

from fastapi import FastAPI


def install_error_handlers(app: FastAPI) -> None:
    """Render every error that can leave a route as a problem."""
