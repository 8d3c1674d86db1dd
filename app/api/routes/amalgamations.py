"""Routes of amalgamations."""

from fastapi import APIRouter

router = APIRouter(prefix="/amalgamations", tags=["amalgamations"])
