"""A training's state as a folder of safetensors and JSON, without pickles.

There is no state of random number generators in it, because there is none to keep: order and dropout
masks of a step are drawn from seeds derived from (seed, epoch) and (seed, step). Nor has the schedule a
state. So model, adapters, optimizer and the number of steps done are everything.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from worker.muka.methods.interface import HeadStart

_FORMAT = 2


class CheckpointUnusableError(ValueError):
    """A checkpoint that is damaged, or belongs to another training."""


@dataclass(frozen=True)
class Position:
    """How far a training is.

    Attributes:
        step: Optimizer steps done.
        micro_batch: Texts that fit through the model at once, as found out so far.
        epoch_losses: Mean loss of every finished epoch.
        epoch_sum: Sum of the losses of the present epoch's steps.
        fingerprint: Of recipe, texts and supervision; a checkpoint continues no other training.
        head: How the student's head started; None in checkpoints that do not say.
    """

    step: int
    micro_batch: int
    epoch_losses: tuple[float, ...]
    epoch_sum: float
    fingerprint: str
    head: HeadStart | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The state after some step. `write` it before the callback returns: training changes it in place.

    Attributes:
        position: How far.
        total_steps: Of the whole training.
        model: The student's.
        objective: With its adapters, if any.
        optimizer: Over the parameters of both.
    """

    position: Position
    total_steps: int
    model: nn.Module
    objective: nn.Module
    optimizer: torch.optim.Optimizer

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.position.step

    def write(self, folder: Path) -> None:
        """Write the files into the folder, state.json last: a folder with it is complete."""
        folder.mkdir(parents=True, exist_ok=True)
        # With the format named, transformers loads the file like one of its own.
        save_model(self.model, str(folder / "model.safetensors"), {"format": "pt"})
        if self.objective.state_dict():
            save_model(self.objective, str(folder / "objective.safetensors"))
        save_file(optimizer_tensors(self.optimizer), folder / "optimizer.safetensors")
        state = {"format": _FORMAT, "total_steps": self.total_steps, **asdict(self.position)}
        (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")


def read_position(folder: Path, fingerprint: str) -> Position:
    """The position of a checkpoint, if it belongs to this training.

    Raises:
        CheckpointUnusableError: It belongs to another training or was written in another format.
    """
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if state.pop("format") != _FORMAT or state["fingerprint"] != fingerprint:
        raise CheckpointUnusableError(
            "resume_from is a checkpoint of another recipe, corpus, supervision or version"
        )
    del state["total_steps"]
    return Position(**{**state, "epoch_losses": tuple(state["epoch_losses"])})


def restore(folder: Path, model: nn.Module, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the tensors of a checkpoint back in place, on the devices where the modules are."""
    load_model(model, folder / "model.safetensors")
    if objective.state_dict():
        load_model(objective, folder / "objective.safetensors")
    state = _nested(load_file(folder / "optimizer.safetensors"))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors: "0.exp_avg", "0.exp_avg_sq", "0.step", ..."""
    state: Mapping[int, Mapping[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": tensor.contiguous() for i, entry in state.items() for name, tensor in entry.items()
    }


def _nested(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    return state
