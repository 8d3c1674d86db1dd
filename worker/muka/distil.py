"""The training loop of the student (section 6). It knows callbacks, not rows or queues."""

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from worker.muka.attention import suited_attention
from worker.muka.batching import Rows, TokenisedTexts, epoch_batches, to_device, tokenise
from worker.muka.checkpoint import Checkpoint, CheckpointUnusableError, Position, read_position, restore
from worker.muka.columns import Columns
from worker.muka.dropout import seeded_dropout
from worker.muka.errors import DivergedError, OutOfMemoryError_, StoppedError
from worker.muka.forward import forward
from worker.muka.head import start_head
from worker.muka.memory import is_out_of_memory, release_memory
from worker.muka.methods.interface import HeadStart, Objective, Supervision
from worker.muka.patching import replaced_forwards
from worker.muka.precision import autocast, resolve
from worker.muka.recipe import Training
from worker.muka.schedule import learning_rate_factor
from worker.muka.seeds import derive_seed
from worker.muka.step_graphs import CAPTURED, WIDTHS, Batch, StepGraphs
from worker.muka.student import Student
from worker.muka.vocabulary import UsedVocabulary

_STEPS_IN_FLIGHT = 2
"""Steps that a GPU may be behind: it never waits for the numbers of a step to be read."""


_LET_GO_STEPS = 32
"""After so many, the rows of the supervision that were read from files are let go: an epoch reads all."""


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did.

    Attributes:
        step: Counted from 1.
        total_steps: Of the whole training.
        epoch: Counted from 0.
        loss: Of this batch.
        learning_rate: Of this step.
        grad_norm: Before clipping.
        texts: In this batch.
    """

    step: int
    total_steps: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float
    texts: int


@dataclass(frozen=True)
class _Launched:
    """A step whose numbers may still be under way on a GPU.

    Attributes:
        step: Counted from 0.
        rate: Of learning.
        texts: In its batch.
        loss_and_norm: Of the batch and of its gradient before clipping: [2], on the device.
    """

    step: int
    rate: float
    texts: int
    loss_and_norm: Tensor


@dataclass(frozen=True)
class DistilReport:
    """What the whole training did.

    Attributes:
        steps: Optimizer steps, those before an interruption included.
        epoch_losses: Mean loss of each epoch.
        seconds: Of this call.
        resumed_from: Step of the checkpoint that this call went on from; 0 if none.
        micro_batch: Texts that went through the model at once in the end.
        precision: Type of the matrix products, "float32" or "bfloat16".
        head: How the student's head started: "random", too, where it is of a kind that has no discriminant,
            and None where a checkpoint of an older version does not say.
    """

    steps: int
    epoch_losses: tuple[float, ...]
    seconds: float
    resumed_from: int
    micro_batch: int
    precision: str
    head: HeadStart | None


def distil(
    student: Student,
    texts: Sequence[str],
    supervision: Supervision,
    training: Training,
    *,
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    save_checkpoint: Callable[[Checkpoint], None] | None = None,
    checkpoint_every_seconds: float | None = None,
    checkpoint_every_steps: int | None = None,
    resume_from: Path | None = None,
    scratch: Path | None = None,
    on_block: Callable[[], None] = lambda: None,
) -> DistilReport:
    """Train the student in place, on the device where it is, and leave it in eval mode.

    The same student, texts, supervision and training give the same weights, bit for bit on the CPU with
    the same number of threads, with or without interruptions.

    Args:
        student: As `create_student` makes it; resuming replaces its weights.
        texts: The n texts of the corpus.
        supervision: n rows, in the order of the texts.
        training: Epochs, rates, seed, ...
        on_step: Told after every step.
        should_stop: Asked before every step. On True, `save_checkpoint` is called a last time.
        save_checkpoint: Gets a `Checkpoint`, which it must `write` before it returns.
        checkpoint_every_seconds: Wall time between checkpoints; None saves only on stopping.
        checkpoint_every_steps: Saves after every so many steps, too, but the last.
        resume_from: Folder that a `Checkpoint` of the same training wrote.
        scratch: Folder on whose disk the token ids lie meanwhile; None keeps them in memory.
        on_block: Called every now and then before the first step, where the head is started; what it raises
            ends the training.

    Raises:
        StoppedError: `should_stop` answered True.
        DivergedError: The loss or the gradient is not finite.
        OutOfMemoryError_: Not even one text fits.
        CorpusEmptyError: No texts.
        ValueError: Supervision or checkpoint belong to something else.
    """
    started = time.monotonic()
    with closing(_Loop(student, texts, supervision, training, scratch)) as loop:
        if resume_from is not None:
            loop.resume(resume_from)
        elif supervision.head == "discriminant":
            loop.start_head(supervision.temperature, on_block)
        resumed_from, saved_at = loop.step, started
        student.model.train()
        while loop.step < loop.total_steps:
            if should_stop is not None and should_stop():
                loop.settle(on_step)
                if save_checkpoint is not None:
                    save_checkpoint(loop.checkpoint())
                raise StoppedError
            loop.launch_step()
            loop.settle(on_step, in_flight=_STEPS_IN_FLIGHT if student.device.type == "cuda" else 0)
            is_due = _is_over(checkpoint_every_seconds, saved_at) or _is_at(checkpoint_every_steps, loop.step)
            if save_checkpoint is not None and is_due and loop.step < loop.total_steps:
                loop.settle(on_step)
                save_checkpoint(loop.checkpoint())
                saved_at = time.monotonic()
        loop.settle(on_step)
        loop.write_back()
        student.model.eval()  # type: ignore[no-untyped-call]
        return loop.report(time.monotonic() - started, resumed_from)


def _is_over(every_seconds: float | None, saved_at: float) -> bool:
    return every_seconds is not None and time.monotonic() - saved_at >= every_seconds


def _is_at(every_steps: int | None, step: int) -> bool:
    return every_steps is not None and step % every_steps == 0


class _Loop:
    """Everything that changes while the student trains."""

    def __init__(
        self,
        student: Student,
        texts: Sequence[str],
        supervision: Supervision,
        training: Training,
        scratch: Path | None,
    ) -> None:
        if len(texts) != len(supervision):
            raise ValueError(f"supervision has {len(supervision)} rows; allowed: {len(texts)}, one a text")
        self._student = student
        self._training = training
        self._max_length = min(training.max_length, student.max_length)
        self._texts = tokenise(student.tokenizer, texts, self._max_length, scratch)
        self._columns = supervision.columns
        self._objective = supervision.objective.to(student.device).train()
        self._vocabulary = UsedVocabulary.of(student.model, self._texts.ids, self._texts.pad_id)
        self._optimizer = make_optimizer(student.model, self._objective, training, self._vocabulary)
        self._graphs: StepGraphs | None = None
        if student.device.type == "cuda" and student.model.config.model_type in CAPTURED:
            self._graphs = StepGraphs(self._parameters, self._loss)
        self._dtype = resolve(training.precision, student.device)
        self._fingerprint = fingerprint(self._texts, supervision, training)
        self._steps_per_epoch = math.ceil(len(texts) / training.batch_size)
        self._micro_batch = min(training.batch_size, len(texts))
        self._epoch_losses: list[float] = []
        self._epoch_sum = 0.0
        self._order: tuple[int, list[Rows]] = (-1, [])
        self._launched: deque[_Launched] = deque()
        self._head: HeadStart | None = "random"
        self.total_steps = self._steps_per_epoch * training.epochs
        self.step = 0

    def start_head(self, temperature: float, on_block: Callable[[], None]) -> None:
        """Before the first step of all."""
        if start_head(
            self._student.model,
            self._texts,
            self._columns,
            seed=self._training.seed,
            temperature=temperature,
            dtype=self._dtype,
            on_block=on_block,
        ):
            self._head = "discriminant"

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint of the same training."""
        try:
            position = read_position(folder, self._fingerprint)
            restore(folder, self._student.model, self._objective, self._optimizer)
        except CheckpointUnusableError:
            raise
        except (ValueError, KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise
            raise CheckpointUnusableError(f"resume_from is a damaged checkpoint: {error}") from error
        if self._vocabulary is not None:
            self._vocabulary.read()
        self.step, self._micro_batch, self._head = position.step, position.micro_batch, position.head
        self._epoch_losses, self._epoch_sum = list(position.epoch_losses), position.epoch_sum

    def checkpoint(self) -> Checkpoint:
        """The present state."""
        self.write_back()
        losses = tuple(self._epoch_losses)
        position = Position(
            self.step, self._micro_batch, losses, self._epoch_sum, self._fingerprint, self._head
        )
        return Checkpoint(position, self.total_steps, self._student.model, self._objective, self._optimizer)

    def write_back(self) -> None:
        """Bring the whole student up to date."""
        if self._vocabulary is not None:
            self._vocabulary.write_back()

    def close(self) -> None:
        """Give the GPU's memory for graphs back; steps go kernel by kernel from now on."""
        self._graphs = None

    def report(self, seconds: float, resumed_from: int) -> DistilReport:
        """What was done, at the end."""
        precision = str(self._dtype).removeprefix("torch.")
        losses = tuple(self._epoch_losses)
        return DistilReport(
            self.step, losses, seconds, resumed_from, self._micro_batch, precision, self._head
        )

    def launch_step(self) -> None:
        """One batch: loss, gradient, clipping, update. A GPU may still be at it afterwards."""
        if isinstance(self._columns, Columns) and self.step % _LET_GO_STEPS == 0:
            self._columns.let_go()
        rows = self._rows(*divmod(self.step, self._steps_per_epoch))
        rate = self._set_learning_rate()
        loss = self._accumulate(rows)
        numbers = torch.stack([loss, self._clip()])
        # The fused AdamW leaves the weights alone where this is 1, without anybody waiting for it.
        self._optimizer.found_inf = (~numbers.isfinite()).any().float()  # type: ignore[attr-defined]
        self._optimizer.step()
        if self._vocabulary is not None:
            self._vocabulary.decay(1.0 - rate * self._training.weight_decay)
        self._launched.append(_Launched(self.step, rate, len(rows), numbers))
        self.step += 1

    def settle(self, on_step: Callable[[StepReport], None] | None, *, in_flight: int = 0) -> None:
        """Wait for launched steps until at most `in_flight` are left, and tell of them.

        Raises:
            DivergedError: The loss or the gradient of one was not finite.
        """
        while len(self._launched) > in_flight:
            done = self._launched.popleft()
            loss, norm = done.loss_and_norm.tolist()
            _refuse_divergence(done.step, loss, norm)
            epoch, place = divmod(done.step, self._steps_per_epoch)
            self._note(loss, place)
            if on_step is not None:
                report = StepReport(done.step + 1, self.total_steps, epoch, loss, done.rate, norm, done.texts)
                on_step(report)

    def _rows(self, epoch: int, place: int) -> Rows:
        if self._order[0] != epoch:
            settings = self._training
            batches = epoch_batches(self._texts.lengths, settings.batch_size, seed=settings.seed, epoch=epoch)
            self._order = (epoch, batches)
        return self._order[1][place]

    def _set_learning_rate(self) -> float:
        factor = learning_rate_factor(self.step, self.total_steps, self._training.warmup_ratio)
        rate = self._training.learning_rate * factor
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _accumulate(self, rows: Rows) -> Tensor:
        """Gradients of the batch's mean loss, in as many micro-batches as memory asks for."""
        while True:
            try:
                return self._try_accumulate(rows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._graphs is not None:  # theirs may be the memory that is missing
                    self.close()
                elif min(self._micro_batch, len(rows)) <= 1:
                    raise OutOfMemoryError_(
                        "training on a single text at a time does not fit into memory",
                        hint="Lower max_length, keep fewer layers, or use a machine with more memory.",
                    ) from error
                else:
                    self._micro_batch = math.ceil(min(self._micro_batch, len(rows)) / 2)
            release_memory()

    def _try_accumulate(self, rows: Rows) -> Tensor:
        model, device = self._student.model, self._student.device
        seed = derive_seed(self._training.seed, "step", self.step)
        tables = [] if self._vocabulary is None else [self._vocabulary]
        with (
            replaced_forwards((table.embedding, table.forward) for table in tables),
            suited_attention(model),
        ):
            if self._graphs is not None and len(rows) == self._micro_batch == self._training.batch_size:
                batch = self._batch(rows)
                self._graphs.prepare(batch)
                with seeded_dropout(model, seed, device):
                    total = self._graphs.run(batch)
                if total is not None:
                    return total
            with seeded_dropout(model, seed, device):
                return self._accumulate_parts(rows)

    def _accumulate_parts(self, rows: Rows) -> Tensor:
        in_place = self._graphs is not None and self._graphs.hold_gradients
        self._optimizer.zero_grad(set_to_none=not in_place)
        total = torch.zeros((), device=self._student.device)
        for start in range(0, len(rows), self._micro_batch):
            part = rows[start : start + self._micro_batch]
            loss = self._loss(self._batch(part)) * (len(part) / len(rows))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _batch(self, rows: Rows) -> dict[str, Tensor]:
        """Token ids, mask and the columns of these texts, on the device."""
        device, width = self._student.device, None
        if self._graphs is not None:
            longest = self._texts.longest(rows)
            width = min(-(-longest // WIDTHS) * WIDTHS, self._max_length)
        columns = {name: to_device(column[rows], device) for name, column in self._columns.items()}
        return self._texts.collate(rows, device, width=width) | columns

    def _loss(self, batch: Batch) -> Tensor:
        texts = {name: tensor for name, tensor in batch.items() if name not in self._columns}
        with autocast(self._dtype, self._student.device):
            answer = forward(self._student.model, texts, features=self._objective.wants_features)
        loss: Tensor = self._objective(answer, {name: batch[name] for name in self._columns})
        return loss

    @property
    def _parameters(self) -> list[nn.Parameter]:
        """All that are trained."""
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _clip(self) -> Tensor:
        return nn.utils.clip_grad_norm_(self._parameters, self._training.max_grad_norm)

    def _note(self, loss: float, place: int) -> None:
        self._epoch_sum += loss
        if place == self._steps_per_epoch - 1:
            self._epoch_losses.append(self._epoch_sum / self._steps_per_epoch)
            self._epoch_sum = 0.0


def _refuse_divergence(step: int, loss: float, norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergedError(
            f"step {step + 1}: the loss is {loss}, the norm of its gradient {norm}",
            hint='Lower the learning rate, or set precision to "float32".',
        )


def make_optimizer(
    model: nn.Module, objective: Objective, training: Training, vocabulary: UsedVocabulary | None = None
) -> torch.optim.AdamW:
    """AdamW over student and adapters; weight decay on matrices only, not on biases and norms.

    fused=True also on the CPU: about nine times faster there for 22 M parameters.
    """
    parameters = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    if vocabulary is not None:
        parameters = [vocabulary.weight if p is vocabulary.embedding.weight else p for p in parameters]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=training.learning_rate, fused=True)


def fingerprint(texts: TokenisedTexts, supervision: Supervision, training: Training) -> str:
    """SHA-256 of what a training depends on beside the student's first weights."""
    total = hashlib.sha256(json.dumps(asdict(training), sort_keys=True).encode())
    total.update(repr(supervision.objective).encode())
    total.update(texts.ids.data)
    total.update(texts.offsets.data)
    for name in sorted(supervision.columns):
        total.update(name.encode())
        total.update(supervision.columns[name].contiguous().numpy().data)
    return total.hexdigest()
