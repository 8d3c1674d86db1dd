"""Artifacts by name: corpora, models, teacher outputs, checkpoints, students."""

from app.storage.store import ArtifactStore, Measure, StoreError, open_store

__all__ = ["ArtifactStore", "Measure", "StoreError", "open_store"]
