"""Tiny models, made once for this folder, and one torch thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny_models import make_encoder, make_teacher
from worker.muka.teacher import Teacher


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def bank_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("bank"), ["balance", "transfer", "card"], "bert", seed=1)


@pytest.fixture(scope="session")
def travel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("travel"), ["flight", "hotel"], "roberta", seed=2)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"), "bert", seed=3)


@pytest.fixture(scope="session")
def bank(bank_folder: Path) -> Teacher:
    return Teacher.load(bank_folder, precision="float32")


@pytest.fixture(scope="session")
def travel(travel_folder: Path) -> Teacher:
    return Teacher.load(travel_folder, precision="float32")
