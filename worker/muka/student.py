"""The student: one classifier over the union of labels (section 6)."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from worker.muka.attention import suited_attention
from worker.muka.batching import Rows, padding_id, tokenise
from worker.muka.errors import StudentNotUsableError
from worker.muka.forward import forward, usable_positions
from worker.muka.memory import TokenBudget, in_token_batches, is_out_of_memory
from worker.muka.model_folder import (
    load_tokenizer,
    quiet_transformers,
    read_config,
    require_safetensors,
    require_weights_for,
)
from worker.muka.precision import autocast, resolve
from worker.muka.recipe import Precision
from worker.muka.seeds import derive_seed, seeded
from worker.muka.teacher import class_names, load_trained_classifier

_CPU = torch.device("cpu")


@dataclass(eq=False)
class Student:
    """A classifier in float32 with its own tokenizer.

    Attributes:
        model: The classifier; its config names the labels.
        tokenizer: Its own.
        report: What is known of how it was made; empty until it is.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        names = class_names(self.model.config)
        return tuple(names[index] for index in sorted(names))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    @property
    def max_length(self) -> int:
        """Tokens per text that both tokenizer and positions allow."""
        positions = usable_positions(self.model)
        allowed = int(min(self.tokenizer.model_max_length, 1_000_000))
        return allowed if positions is None else min(allowed, positions)

    def to(self, device: torch.device) -> Self:
        """Move the model; answers itself."""
        self.model.to(device)  # type: ignore[arg-type]
        return self

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | None = None) -> Self:
        """A student that `save` wrote, in float32 and eval mode."""
        config = read_config(folder)
        require_safetensors(folder)
        model = load_trained_classifier(folder, config, torch.float32).requires_grad_(True)
        return cls(model, load_tokenizer(folder)).to(device or _CPU)

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder: config, safetensors, tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def save_without_weights(self, folder: Path) -> None:
        """Config and tokenizer, as `save` writes them: a checkpoint's folder has its weights already."""
        config = copy.deepcopy(self.model.config)
        config.architectures = [type(self.model).__name__]
        config.dtype = torch.float32
        with quiet_transformers():
            config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def predict(
        self,
        texts: Sequence[str],
        *,
        max_length: int = 128,
        token_budget: int | None = None,
        precision: Precision = "float32",
        on_batch: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Probabilities [n, |L|] float32 on the CPU, in the order of the texts; dropout is off.

        Raises:
            CorpusEmptyError: No texts.
            OutOfMemoryError_: Not even one text fits.
        """
        return torch.softmax(self._logits(texts, max_length, token_budget, precision, on_batch), dim=-1)

    @torch.inference_mode()
    def _logits(
        self,
        texts: Sequence[str],
        max_length: int,
        token_budget: int | None,
        precision: Precision,
        on_batch: Callable[[int], None] | None,
    ) -> Tensor:
        tokenised = tokenise(self.tokenizer, texts, min(max_length, self.max_length))
        dtype = resolve(precision, self.device)

        def step(rows: Rows) -> Tensor:
            with suited_attention(self.model), autocast(dtype, self.device):
                answer = forward(self.model, tokenised.collate(rows, self.device))
            return answer.logits.float().cpu()

        self.model.eval()  # type: ignore[no-untyped-call]
        budget = TokenBudget.for_device(token_budget, self.device)
        return _in_order(in_token_batches(step, tokenised.lengths, budget), on_batch)


def create_student(path: Path, labels: Sequence[str], *, layers: int | None = None, seed: int) -> Student:
    """A student whose encoder comes from a checkpoint and whose head is new, drawn from the seed.

    Args:
        path: Folder of an encoder or a classifier, any architecture that can classify sequences.
        labels: The student's class names.
        layers: Keep only the first so many encoder layers.
        seed: Of the head. The head is new also where the checkpoint's has the right shape.

    Raises:
        TeacherNotFoundError, TeacherUnsafeFormatError, TeacherNotClassifierError: As for a teacher's folder.
        StudentNotUsableError: The architecture cannot classify, the checkpoint holds no encoder for it, or
            it has fewer layers than asked for.
    """
    config = _student_config(path, labels, layers)
    require_safetensors(path)
    require_weights_for(path, config)
    tokenizer = load_tokenizer(path)
    if config.pad_token_id is None:
        config.pad_token_id = padding_id(tokenizer)
    with quiet_transformers(), seeded(derive_seed(seed, "student"), _CPU):
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        _copy_encoder(path, config, model)
    return Student(model.eval(), tokenizer)


def _student_config(path: Path, labels: Sequence[str], layers: int | None) -> PretrainedConfig:
    config = read_config(path)
    if type(config) not in AutoModelForSequenceClassification._model_mapping:  # noqa: SLF001
        raise StudentNotUsableError(
            f"{path.name}: there is no sequence classifier of type {config.model_type}",
            hint="Start the student from an encoder like BERT, RoBERTa or ModernBERT.",
        )
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if layers is not None:
        _cut_layers(path, config, layers)
    return config


def _cut_layers(path: Path, config: PretrainedConfig, layers: int) -> None:
    present = getattr(config, "num_hidden_layers", None)
    if not isinstance(present, int) or not 1 <= layers <= present:
        raise StudentNotUsableError(
            f"{path.name}: layers is {layers}; allowed: [1, {present}]", hint="Ask for fewer layers."
        )
    config.num_hidden_layers = layers
    if isinstance(kinds := getattr(config, "layer_types", None), list):
        config.layer_types = kinds[:layers]


def _copy_encoder(path: Path, config: PretrainedConfig, model: PreTrainedModel) -> None:
    """Fill the encoder of `model` with what the checkpoint holds; the rest stays as drawn."""
    try:
        loaded, info = AutoModelForSequenceClassification.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise StudentNotUsableError(f"{path.name}: the weights cannot be read: {error}") from error
    prefix = f"{model.base_model_prefix}."
    fresh = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    encoder = {
        name: tensor
        for name, tensor in loaded.state_dict().items()
        if name.startswith(prefix) and name not in fresh
    }
    _refuse_missing_encoder(path, [name for name in fresh if name.startswith(prefix)], len(encoder))
    model.load_state_dict(encoder, strict=False)


def _refuse_missing_encoder(path: Path, missing: Sequence[str], found: int) -> None:
    """A pooler may be new (masked language models have none); the encoder itself may not."""
    needed = [name for name in missing if "pooler" not in name]
    if needed or not found:
        raise StudentNotUsableError(
            f"{path.name}: the encoder lacks {len(needed)} weights, like {sorted(needed)[:3]}",
            hint="Start the student from a complete checkpoint.",
        )


def _in_order(batches: Iterable[tuple[Rows, Tensor]], on_batch: Callable[[int], None] | None) -> Tensor:
    """Answers of batches of rows, put back into the order of the texts."""
    rows, answers = [], []
    for places, answer in batches:
        rows.append(torch.from_numpy(places))
        answers.append(answer)
        if on_batch is not None:
            on_batch(len(places))
    return torch.cat(answers)[torch.argsort(torch.cat(rows))]
