"""Forward and backward of a training step as one launch (section 9.4).

A step of a small encoder is some 1,500 kernels, which a GPU runs faster than the CPU launches them. A CUDA
graph launches them all at once. It is made for one shape of a batch, of which there are few when texts are
padded to multiples of `WIDTHS`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.muka.memory import release_memory

WIDTHS = 16
"""Tokens that the width of a batch is a multiple of."""

CAPTURED = frozenset(
    ["albert", "bert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta", "xlm-roberta"]
)
"""Model types whose step never waits for the GPU, as tests/gpu shows. One that does cannot be captured, and a
capture that fails may leave torch in a bad state: so all others train kernel by kernel."""

_OFTEN = 3
"""A shape that has come so often will come again: capturing it takes as long as some dozen steps."""

log = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]
_Shape = tuple[tuple[str, torch.Size], ...]


@dataclass(frozen=True)
class _Captured:
    """One shape's graph.

    Attributes:
        graph: Makes gradients zero, then loss and gradients of what lies in `batch`.
        batch: Where the graph reads.
        loss: Where it writes the loss.
    """

    graph: torch.cuda.CUDAGraph
    batch: Batch
    loss: Tensor


class StepGraphs:
    """The graphs of a training.

    The gradients of all graphs are the parameters' own: once there is one, they must be made zero, and not
    removed.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], loss: Callable[[Batch], Tensor]) -> None:
        """
        Args:
            parameters: Whose gradients are wanted.
            loss: Of a batch; draws dropout from torch's generators, and never waits for the GPU.
        """  # noqa: D205, D212  (a class is documented at the class)
        self._parameters = parameters
        self._loss = loss
        self._seen: Counter[_Shape] = Counter()
        self._captured: dict[_Shape, _Captured] = {}
        self._works = True

    @property
    def hold_gradients(self) -> bool:
        """Whether some graph writes to the gradients that the parameters have now."""
        return bool(self._captured)

    def prepare(self, batch: Batch) -> None:
        """Capture the shape of this batch, if it comes often; call it where the loss could be computed."""
        shape = _shape(batch)
        if not self._works or shape in self._captured:
            return
        self._seen[shape] += 1
        if self._seen[shape] < _OFTEN:
            return
        stream = torch.cuda.current_stream()
        try:
            with torch.random.fork_rng(devices=[next(iter(batch.values())).device]):
                self._captured[shape] = self._capture(batch)
        except RuntimeError as error:
            torch.cuda.set_stream(stream)
            log.warning("the training goes on without CUDA graphs: %s", str(error).partition("\n")[0])
        else:
            return
        self._works = False
        self._captured.clear()
        release_memory()

    def run(self, batch: Batch) -> Tensor | None:
        """Loss of the batch, its gradients in place; None, and nothing done, if its shape is not captured."""
        captured = self._captured.get(_shape(batch))
        if captured is None:
            return None
        for name, tensor in captured.batch.items():
            tensor.copy_(batch[name])
        captured.graph.replay()
        return captured.loss.clone()

    def _capture(self, batch: Batch) -> _Captured:
        mine = {name: tensor.clone() for name, tensor in batch.items()}
        now, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(now)
        with torch.cuda.stream(aside):  # libraries set up what they need, gradients get their places
            self._loss(mine).backward()  # type: ignore[no-untyped-call]
        now.wait_stream(aside)
        pool = next(iter(self._captured.values())).graph.pool() if self._captured else None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            torch._foreach_zero_([p.grad for p in self._parameters if p.grad is not None])
            loss = self._loss(mine)
            loss.backward()  # type: ignore[no-untyped-call]
        return _Captured(graph, mine, loss.detach())


def _shape(batch: Batch) -> _Shape:
    return tuple((name, batch[name].shape) for name in sorted(batch))
