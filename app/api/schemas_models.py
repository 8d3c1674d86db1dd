"""Uploaded models as the contract shows them."""

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from app.domain import labels as label_names
from app.persistence import tables

PLACEHOLDER_HINT = (
    'some labels are placeholders (`LABEL_0`): name them in the job, as in {"model": "…", '
    '"labels": {"LABEL_0": "refund"}}, or drop them with null'
)


class ModelFile(BaseModel):
    """One line of a model's manifest."""

    path: str
    size_bytes: int
    sha256: str


class Model(BaseModel):
    """An uploaded teacher."""

    id: str
    name: str | None = Field(description="The uploaded archive's name.")
    architecture: str
    model_type: str
    labels: list[str] = Field(description="By class index.")
    placeholder_labels: bool = Field(description="Some label is `LABEL_i`, which a job must name or drop.")
    hint: str | None = Field(None, description="What a job that uses this model must do.")
    parameters: int
    size_bytes: int
    digest: str = Field(description="sha256 over the manifest: the same content is the same model.")
    files: list[ModelFile]
    created_at: datetime
    expires_at: datetime | None = Field(description="When it may be removed; null: it is kept.")

    @classmethod
    def of(cls, row: tables.Model) -> Self:
        """From its row."""
        has_placeholders = bool(label_names.placeholders(row.labels))
        facts = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        return cls(
            **facts, placeholder_labels=has_placeholders, hint=PLACEHOLDER_HINT if has_placeholders else None
        )


class CreatedModel(Model):
    """An uploaded teacher, and what of the archive was not kept."""

    ignored_files: list[str] = Field(
        default=[],
        description="Not needed to classify, or not safe to load: pickles, code, optimizer states.",
    )


RAW: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "A .tar, .tar.gz or .zip."},
                    "name": {"type": "string", "description": "Instead of the archive's name."},
                },
            }
        },
        "application/x-tar": RAW,
        "application/gzip": RAW,
        "application/zip": RAW,
        "application/octet-stream": RAW,
    },
}
"""Of `POST /models`."""
