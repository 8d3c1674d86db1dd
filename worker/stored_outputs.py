"""The shelf on which teachers' outputs are kept for all jobs: files of the store, each with its row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tokenizers
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sqlalchemy.orm import Session

from app.domain.stored_outputs import Computation, Piece
from app.persistence import stored_outputs
from app.storage import ArtifactStore
from worker.lease import Lease
from worker.muka import TeacherOutputs
from worker.muka.precision import resolve
from worker.muka.recipe import Precision
from worker.patience import Patience
from worker.system_errors import error_number

_FORMAT = 6
"""Raised when worker.muka computes other numbers from the same inputs."""

Tensors = dict[str, torch.Tensor]

_TENSORS = {
    Piece.LOGITS: ("logits",),
    Piece.FEATURES: ("features",),
    Piece.SAMPLES: ("mc_probabilities", "passes", "pass_entropy"),
}


def computation(precision: Precision, device: torch.device) -> Computation:
    """What this process computes numbers with."""
    libraries = ", ".join(f"{each.__name__} {each.__version__}" for each in (torch, transformers, tokenizers))
    versions = f"{libraries}, outputs {_FORMAT}"
    return Computation(str(resolve(precision, device)).removeprefix("torch."), f"{device.type}, {versions}")


@dataclass(frozen=True)
class Shelf:
    """What is kept, as one attempt of a job reaches it."""

    patience: Patience
    computation: Computation

    @property
    def lease(self) -> Lease:
        """Of the attempt."""
        return self.patience.lease

    @property
    def store(self) -> ArtifactStore:
        """Where the files are."""
        return self.patience.store

    def need(self, keys: Sequence[str]) -> set[str]:
        """Ask for pieces in advance, and hear which are there: nobody removes them while the job lives."""
        there: set[str] = set()
        for chunk in stored_outputs.chunks(keys):
            there |= self.lease.write(partial(self._need, chunk))
        return there

    def _need(self, keys: list[str], session: Session) -> set[str]:
        return stored_outputs.need(session, self.lease.job_id, keys)

    def find(self, key: str) -> Tensors | None:
        """The tensors of a piece; None where its file is missing or broken: it is computed again."""
        return self.patience.insist(partial(self._find, key))

    def _find(self, key: str) -> Tensors | None:
        try:
            with self.store.borrowed(key) as file:
                return load_file(file)
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            if error_number(error) is not None:
                raise  # the disk's fault, not the file's
            self.store.delete(key)
            return None

    def keep(self, keys: Mapping[Piece, str], outputs: TeacherOutputs) -> None:
        """Put pieces of outputs on the shelf; one that is there already stays."""
        self.patience.insist(partial(self._keep, keys, outputs))

    def _keep(self, keys: Mapping[Piece, str], outputs: TeacherOutputs) -> None:
        with self.store.staging() as folder:
            files = {key: folder / f"{piece}.safetensors" for piece, key in keys.items()}
            for piece, key in keys.items():
                tensors = {name: getattr(outputs, name).contiguous() for name in _TENSORS[piece]}
                save_file(tensors, files[key])
            self.lease.write(partial(self._put, files))

    def _put(self, files: Mapping[str, Path], session: Session) -> bool:
        for key in sorted(files):
            size = files[key].stat().st_size if files[key].exists() else self.store.size(key)
            stored_outputs.record(session, key, size, self.computation)
            if not self.store.exists(key):
                self.store.put_file(key, files[key])
        return True

    def count(self, *, reused: int, computed: int) -> None:
        """Tell the metrics how many shards of a teacher were here, and how many were not."""

        def change(session: Session) -> bool:
            stored_outputs.count(session, stored_outputs.REUSED, reused)
            stored_outputs.count(session, stored_outputs.COMPUTED, computed)
            return True

        self.lease.write(change)
