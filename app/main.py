"""`create_app()`: wiring, nothing else. `uvicorn --factory app.main:create_app` runs it."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI

from app.api.dependencies import caller
from app.api.error_handlers import install_error_handlers
from app.api.measuring import Measuring
from app.api.middleware import BodyLimit, RequestContext
from app.api.openapi import describe
from app.api.routes import (
    amalgamations,
    checkpoints,
    corpora,
    health,
    hub,
    job_events,
    job_findings,
    metrics,
    models,
    plans,
    predictions,
    students,
    webhooks,
)
from app.api.uploads import UploadSlots
from app.processes import told_to_stop
from app.services.backend import Backend
from app.services.caretaker import caretaking
from app.services.deliverer import delivering
from app.services.keys import Keyring
from app.services.live import LiveJobs
from app.services.metrics import Metrics
from app.services.predictions import Predictions
from app.services.readiness import Readiness
from app.services.submission import Submissions
from app.settings import Settings, get_settings

GUARDED = (
    plans,
    amalgamations,
    job_events,
    job_findings,
    checkpoints,
    students,
    corpora,
    models,
    predictions,
    webhooks,
    metrics,
    hub,
)
"""Rooms that nobody enters without a key; first those that are entered most, for they are tried in turn."""
OWN_LIMITS = {"/corpora": "POST", "/models": "POST"}
"""Uploads: they stream to the store, under limits of their own."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API of one process; connections open at its start and close at its end."""
    chosen = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        backend = Backend.from_settings(chosen)
        app.state.backend = backend
        app.state.keyring = Keyring(backend.database, chosen)
        app.state.readiness = Readiness(backend)
        app.state.upload_slots = UploadSlots(chosen.max_uploads)
        app.state.live = live = LiveJobs(backend)
        app.state.submissions = Submissions(backend)
        app.state.metrics = Metrics(backend, live)
        app.state.predictions = predicting = Predictions(backend)
        loop = asyncio.get_running_loop()
        let_listeners_go = partial(loop.call_soon_threadsafe, live.end)
        gc.freeze()  # to look through what stays for ever would take a tenth of a second, and requests wait
        with caretaking(backend), delivering(backend), told_to_stop(let_listeners_go):
            yield
        gc.unfreeze()
        await live.close()
        await predicting.close()
        backend.close()

    app = FastAPI(title="muka", version="0.1.0", lifespan=lifespan, separate_input_output_schemas=False)
    app.add_middleware(BodyLimit, max_bytes=chosen.max_body_bytes, own_limits=OWN_LIMITS)
    app.add_middleware(RequestContext)
    app.add_middleware(Measuring)  # added last: outermost
    install_error_handlers(app)
    for room in GUARDED:
        app.include_router(room.router, dependencies=[Depends(caller)])
    app.include_router(health.router)
    describe(app)
    return app
