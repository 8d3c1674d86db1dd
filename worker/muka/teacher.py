"""A teacher: a frozen, fine-tuned sequence classifier with its own tokenizer (section 1)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from worker.muka.batching import padding_id, tokenise
from worker.muka.errors import TeacherNotClassifierError, TeacherNotFoundError
from worker.muka.forward import usable_positions
from worker.muka.label_space import teacher_labels
from worker.muka.memory import is_out_of_memory
from worker.muka.model_folder import (
    load_tokenizer,
    quiet_transformers,
    read_config,
    require_safetensors,
    require_weights_for,
)
from worker.muka.precision import resolve
from worker.muka.recipe import Precision
from worker.muka.uncertainty import dropout_calls

_SOME_TEXTS = 7
"""A prime number."""
_ONE_LABEL_HINT = "A teacher classifies a text into one of at least two classes."


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen classifier in eval mode.

    Attributes:
        name: For people: in reports and errors.
        model: The classifier; no parameter wants a gradient.
        tokenizer: Its own.
        labels: Name of each class, None where dropped.
        digest: Of the folder's contents; the dropout seeds come from it, so that a teacher's scores
            do not depend on its name or its place among the others.
        folder: Where it was loaded from.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str | None, ...]
    digest: str
    folder: Path

    @property
    def num_labels(self) -> int:
        """C_i, all classes of the head, dropped ones included."""
        return len(self.labels)

    @property
    def max_length(self) -> int:
        """Tokens per text that both tokenizer and positions allow."""
        positions = usable_positions(self.model)
        allowed = int(min(self.tokenizer.model_max_length, 1_000_000))
        return allowed if positions is None else min(allowed, positions)

    @property
    def has_dropout(self) -> bool:
        """Whether Monte-Carlo dropout can sample it: a pass comes to a dropout layer with p > 0."""
        return bool(self._dropout_calls)

    @property
    def drops_for_all_texts(self) -> bool:
        """Whether the texts of a batch share some dropout mask; see `worker.muka.uncertainty`."""
        return any(self._dropout_calls)

    @cached_property
    def _dropout_calls(self) -> list[bool]:
        texts = tokenise(self.tokenizer, ["a"] * _SOME_TEXTS, self.max_length)
        return dropout_calls(self.model, texts.collate(np.arange(_SOME_TEXTS), self.device))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        name: str | None = None,
        labels: Sequence[str | None] | None = None,
        mapping: Mapping[str, str | None] | None = None,
        device: torch.device | None = None,
        precision: Precision = "auto",
        digest: str | None = None,
    ) -> Self:
        """Load a teacher from a Hugging Face folder; never from pickles, never with foreign code.

        Args:
            path: The folder.
            name: Defaults to the folder's name.
            labels: Class names as `teacher_labels` makes them; replaces the config's and `mapping`.
            mapping: Renames (or drops, with None) labels of the config.
            device: Defaults to the CPU.
            precision: Type of the weights; "auto" casts them where bfloat16 is faster.
            digest: Of the folder's contents, where the caller knows it already.

        Raises:
            TeacherNotFoundError: Files are missing.
            TeacherUnsafeFormatError: The weights are only in pickles.
            TeacherNotClassifierError: Not a single-label sequence classifier with a trained head.
            LabelConflictError: See `teacher_labels`.
        """
        folder, target = Path(path), device or torch.device("cpu")
        config = read_config(folder)
        require_classifier(folder, config)
        require_safetensors(folder)
        names = tuple(labels) if labels is not None else teacher_labels(class_names(config), mapping)
        if len(names) != len(class_names(config)):
            raise ValueError(
                f"labels has {len(names)} names; allowed: one for each of {len(class_names(config))} classes"
            )
        tokenizer = load_tokenizer(folder)
        model = load_trained_classifier(folder, config, resolve(precision, target))
        model.to(target)  # type: ignore[arg-type]
        if model.config.pad_token_id is None:
            model.config.pad_token_id = padding_id(tokenizer)
        return cls(name or folder.name, model, tokenizer, names, digest or folder_digest(folder), folder)


def class_names(config: PretrainedConfig) -> dict[int, str]:
    """Index to name of the classes, as the configuration has them."""
    return {int(index): str(name) for index, name in (config.id2label or {}).items()}


def require_classifier(folder: Path, config: PretrainedConfig) -> None:
    """Refuse what the config says is not a single-label sequence classifier.

    Raises:
        TeacherNotClassifierError: Says what it is instead.
    """
    architectures = config.architectures if isinstance(config.architectures, list) else []
    architectures = [str(name)[:100] for name in architectures]
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise TeacherNotClassifierError(
            f"{folder.name}: the architecture is {', '.join(architectures) or 'not named'}",
            hint="Only ...ForSequenceClassification models can teach; fine-tune this one first.",
        )
    if config.problem_type not in (None, "single_label_classification"):
        raise TeacherNotClassifierError(
            f"{folder.name}: it was trained for {config.problem_type}", hint=_ONE_LABEL_HINT
        )
    if len(class_names(config)) < 2:
        raise TeacherNotClassifierError(f"{folder.name}: it has one output only", hint=_ONE_LABEL_HINT)


def load_trained_classifier(folder: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The frozen classifier in eval mode, with every weight from the checkpoint.

    Raises:
        TeacherNotClassifierError: Weights are missing from the checkpoint or have other shapes.
        TeacherNotFoundError: The files cannot be read.
    """
    require_weights_for(folder, config)
    try:
        with quiet_transformers():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise TeacherNotFoundError(f"{folder.name}: the weights cannot be read: {error}") from error
    except Exception as error:  # whatever a config asks for is built in one of a hundred families
        if is_out_of_memory(error):
            raise
        raise TeacherNotClassifierError(
            f"{folder.name}: the weights do not fit the config: {error}"
        ) from error
    if info["missing_keys"]:
        raise TeacherNotClassifierError(
            f"{folder.name}: the checkpoint lacks {_named(sorted(info['missing_keys']))}",
            hint="Its classification head was never trained; fine-tune and save the whole classifier.",
        )
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


def _named(weights: Sequence[str]) -> str:
    rest = f" and {len(weights) - 3} more" if len(weights) > 3 else ""
    return ", ".join(weights[:3]) + rest


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's JSON, text and safetensors files."""
    total = hashlib.sha256()
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in {".json", ".txt", ".model", ".safetensors"}
    ):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
