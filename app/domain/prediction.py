"""What a prediction worker is asked, as it crosses the queue."""

from pydantic import Field

from app.domain.part import Part

MAX_TEXTS = 256
"""In one request: what is answered while somebody waits."""


class Question(Part):
    """Texts, and the student that shall classify them. The API has checked that the caller may ask."""

    student_id: str
    digest: str
    """Of the student's content."""
    storage_prefix: str
    """Where the store keeps its files."""
    size_bytes: int
    texts: list[str] = Field(min_length=1, max_length=MAX_TEXTS)
    top_k: int | None = None
    """Labels to tell of each text, the most probable first; None: all."""
