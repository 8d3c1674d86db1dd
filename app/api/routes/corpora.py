"""Routes of corpora."""

from fastapi import APIRouter

router = APIRouter(prefix="/corpora", tags=["corpora"])
