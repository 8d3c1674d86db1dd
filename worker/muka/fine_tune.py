"""Ordinary supervised fine-tuning: it makes teachers for demos, and the gold-label reference."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from worker.muka.distil import distil
from worker.muka.label_space import normalise
from worker.muka.methods.interface import Supervision
from worker.muka.recipe import Training
from worker.muka.student import Student, create_student


def fine_tune(
    encoder_path: Path,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    training: Training,
    label_names: Sequence[str] | None = None,
    output_dir: Path | None = None,
    progress: bool = False,
    layers: int | None = None,
    device: torch.device | None = None,
) -> Student:
    """Fine-tune a classifier on labelled texts; the same loop as for students, with one-hot targets.

    Args:
        encoder_path: Folder of the encoder.
        texts: n texts.
        labels: Their n label names.
        training: Epochs, rates, seed, ...
        label_names: Classes and their order; sorted names of `labels` by default.
        output_dir: Where to save it, if anywhere.
        progress: Whether to show a bar.
        layers: Keep only the first so many encoder layers.
        device: A GPU where there is one, by default.

    Raises:
        ValueError: Other numbers of texts and labels, or a label that `label_names` lacks.
    """
    gold = [normalise(label) for label in labels]
    names = sorted(set(gold)) if label_names is None else [normalise(name) for name in label_names]
    if len(gold) != len(texts) or (unknown := sorted(set(gold) - set(names))):
        found = unknown if len(gold) == len(texts) else len(gold)
        raise ValueError(f"labels has {found}; allowed: {len(texts)} labels, one a text, all in label_names")
    student = create_student(encoder_path, names, layers=layers, seed=training.seed)
    student.to(device or default_device())
    one_hot = functional.one_hot(torch.tensor([names.index(name) for name in gold]), len(names)).float()
    with tqdm(disable=not progress, desc="fine-tuning", unit="step") as bar:
        supervision = Supervision({"q": one_hot, "m": torch.ones(len(one_hot))})
        report = distil(
            student, texts, supervision, training, on_step=lambda step: advance(bar, step.total_steps)
        )
    student.report["training"] = {"steps": report.steps, "epoch_losses": list(report.epoch_losses)}
    if output_dir is not None:
        student.save(output_dir)
    return student


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def advance(bar: tqdm, total: int, by: int = 1) -> None:
    """Move a progress bar whose end shows only under way."""
    bar.total = total
    bar.update(by)
