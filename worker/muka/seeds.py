"""Seeds derived from a job's seed and a purpose, so that no two purposes share random numbers."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*parts: str | int) -> int:
    """A seed of 63 bits that depends on every part, the same on every machine.

    Args:
        parts: For example the job's seed, a teacher's digest, a shard and a pass.

    Returns:
        The first 63 bits of the parts' SHA-256.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators for the block and put their state back afterwards.

    Dropout modules draw from the global generators only, so these are what must be seeded.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed, which seeds GPUs that are not put back, too.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[_index(device)].manual_seed(seed)
        elif device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
