"""`create_app()`: wiring, nothing else. `uvicorn --factory app.main:create_app` runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.api.error_handlers import install_error_handlers
from app.api.routes import amalgamations, corpora, health, models, students
from app.services.backend import Backend
from app.settings import Settings, get_settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API of one process; connections open at its start and close at its end."""
    chosen = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.backend = Backend.from_settings(chosen)
        yield
        app.state.backend.close()

    app = FastAPI(title="muka", version="0.1.0", lifespan=lifespan)
    install_error_handlers(app)
    for room in (corpora, models, amalgamations, students, health):
        app.include_router(room.router)
    return app
