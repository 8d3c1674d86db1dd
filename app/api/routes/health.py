"""Is the process alive, and can it work?"""

from fastapi import APIRouter

router = APIRouter(tags=["health"])
