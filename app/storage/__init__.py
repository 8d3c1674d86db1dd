"""Artifacts by name: corpora, models, teacher outputs, checkpoints, students."""

from app.storage.store import ArtifactStore, StoreError, open_store

__all__ = ["ArtifactStore", "StoreError", "open_store"]
