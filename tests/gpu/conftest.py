"""For a machine with an NVIDIA GPU; `make test-gpu`. Needs torch and transformers, no service."""

import pytest
import torch


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The first one."""
    assert torch.cuda.is_available(), "no GPU that torch can use; `make test` has the tests that need none"
    return torch.device("cuda", 0)
