"""MUKA the plain way, as research code does it: what the engine is compared with.

Written from the specification alone, without anything of `worker.muka`. Every text is padded to 128 tokens;
the K = 16 dropout passes run one by one, in float32; every teacher answers anew for every training batch of
every epoch; the optimizer is PyTorch's AdamW as it comes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PlainTeacher:
    """A float32 classifier in eval mode.

    Attributes:
        model: With its head.
        tokenizer: Its own.
        places: Which classes of the student its own are, [C].
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    places: Tensor


@dataclass(frozen=True)
class PlainSettings:
    """The defaults of the specification."""

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 2e-5
    warmup_ratio: float = 0.1
    max_length: int = 128
    passes: int = 16
    temperature: float = 0.2


def plain_muka(
    teachers: Sequence[PlainTeacher],
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    settings: PlainSettings,
    *,
    seed: int = 1,
) -> list[float]:
    """Train the student in place; answers the loss of every step."""
    torch.manual_seed(seed)
    order = random.Random(seed)
    steps = settings.epochs * -(-len(texts) // settings.batch_size)
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, settings))
    losses, classes = [], len(student.config.id2label or ())
    for _ in range(settings.epochs):
        shuffled = order.sample(list(texts), len(texts))
        for at in range(0, len(shuffled), settings.batch_size):
            batch = shuffled[at : at + settings.batch_size]
            q, margin = golden_supervision(teachers, batch, classes, settings)
            student.train()
            log_s = functional.log_softmax(student(**_encoded(tokenizer, batch, settings)).logits, dim=-1)
            loss = (margin * (torch.xlogy(q, q) - q * log_s).sum(-1)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


@torch.no_grad()
def golden_supervision(
    teachers: Sequence[PlainTeacher], batch: Sequence[str], classes: int, settings: PlainSettings
) -> tuple[Tensor, Tensor]:
    """Supervision q [b, classes] and margins [b]: a teacher runs once without dropout and K times with it."""
    answers, scores = [], []
    for teacher in teachers:
        encoded = _encoded(teacher.tokenizer, batch, settings)
        p = torch.softmax(teacher.model(**encoded).logits, dim=-1)
        answers.append(torch.zeros(len(batch), classes).index_add(-1, teacher.places, p))
        _switch_dropout(teacher.model, on=True)
        passes = [torch.softmax(teacher.model(**encoded).logits, dim=-1) for _ in range(settings.passes)]
        _switch_dropout(teacher.model, on=False)
        p_hat = torch.stack(passes).mean(0)
        scores.append(1 + torch.xlogy(p_hat, p_hat).sum(-1) / torch.tensor(p_hat.shape[-1]).log())
    u = torch.stack(scores, dim=-1)
    weights = torch.softmax(u / settings.temperature, dim=-1)
    q = (torch.stack(answers, dim=1) * weights.unsqueeze(-1)).sum(1)
    best, second = u.topk(2, dim=-1).values.unbind(-1)
    return q, best - second + 1e-6


def _switch_dropout(model: nn.Module, *, on: bool) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train(on)


def _encoded(
    tokenizer: PreTrainedTokenizerBase, batch: Sequence[str], settings: PlainSettings
) -> dict[str, Tensor]:
    encoded = tokenizer(
        list(batch),
        padding="max_length",
        truncation=True,
        max_length=settings.max_length,
        return_tensors="pt",
    )
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _rate(step: int, steps: int, settings: PlainSettings) -> float:
    warmup = max(1, round(steps * settings.warmup_ratio))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
