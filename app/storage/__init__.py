"""Artifacts by name: corpora, models, teacher outputs, checkpoints, students."""

from app.storage.store import (
    DISK_ERRORS,
    ArtifactStore,
    Measure,
    StoreAwayError,
    StoreError,
    StoreFullError,
    configured_store,
    open_store,
)

__all__ = [
    "DISK_ERRORS",
    "ArtifactStore",
    "Measure",
    "StoreAwayError",
    "StoreError",
    "StoreFullError",
    "configured_store",
    "open_store",
]
