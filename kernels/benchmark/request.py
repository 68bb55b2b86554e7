"""One request as a server makes it: its input sent in one copy, its work done in one graph, its answer fetched in one copy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

ALIGNMENT = 16


class RequestMemory:
    """Tensors of a request side by side in one piece of memory of the host, and in one of the device that stays where it is.

    Attributes:
        host, read: the tensors by name, on the host (pinned for CUDA) and on the device; what the work reads is ``read``.

    Args:
        tensors: of the request, on the CPU.
        device: where the work is done.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
        places, total = {}, 0
        for name, tensor in tensors.items():
            places[name] = total
            total += math.ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT
        self._host = torch.zeros(total, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = torch.zeros(total, dtype=torch.uint8, device=device)

        def carved(memory: torch.Tensor) -> dict[str, torch.Tensor]:
            return {
                name: memory[places[name] : places[name] + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                for name, tensor in tensors.items()
            }

        self.host, self.read = carved(self._host), carved(self._device)
        for name, tensor in tensors.items():
            self.host[name].copy_(tensor)
        self.send()

    def send(self) -> None:
        """Begin the one copy to the device."""
        self._device.copy_(self._host, non_blocking=True)


class Request:
    """Calls that each send, work, and fetch.

    Args:
        memory: what is sent.
        work: from ``memory.read`` to one tensor.
        captured: (how its captured form is started, the tensor it writes); None does the work by plain calls.
    """

    def __init__(
        self,
        memory: RequestMemory,
        work: Callable[[], torch.Tensor],
        captured: tuple[Callable[[], Any], torch.Tensor] | None = None,
    ) -> None:
        self._memory, self._work, self._captured = memory, work, captured

    def start(self) -> torch.Tensor:
        """Send and begin the work; the tensor that will hold the answer."""
        self._memory.send()
        if self._captured is None:
            return self._work()
        replay, answer = self._captured
        replay()
        return answer

    def __call__(self) -> torch.Tensor:
        """The answer on the host: the one wait."""
        return self.start().cpu()


def packed_answer(ids: torch.Tensor, scores: torch.Tensor, lse: torch.Tensor) -> torch.Tensor:
    """A ranking in one tensor, float32 [3k + 1]: ids (int64 [1, k]) as pairs of 32 bits, scores [1, k], log-sum-exp [1]."""
    return torch.cat([ids[0].view(torch.float32), scores[0].float(), lse.float()])


def unpacked_answer(answer: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What ``packed_answer`` packed."""
    return answer[: 2 * k].view(torch.int64)[None], answer[None, 2 * k : 3 * k], answer[3 * k :]
