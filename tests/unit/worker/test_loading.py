"""The garbage collector is back after an import, however that went."""

import gc

import pytest

from worker.loading import without_collector


def test_it_is_off_meanwhile_and_back_afterwards() -> None:
    with without_collector():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()


def test_it_is_back_after_a_failure() -> None:
    with pytest.raises(ModuleNotFoundError), without_collector():
        raise ModuleNotFoundError
    assert gc.isenabled()
    gc.unfreeze()
