"""The processes of one run: alone, or started together by `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from relsim.errors import RelsimError


@dataclass(frozen=True)
class Crew:
    """This process among those of a run: number `rank` of `size`. All of them run the same calls in the same order."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> Crew:
        """Return the crew that `torchrun` has started this process in, over gloo; without it the process is alone.

        Raises:
            RelsimError: the others could not be reached.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return cls()
        if not dist.is_initialized():
            try:
                dist.init_process_group("gloo")
            except (RuntimeError, ValueError) as error:
                raise RelsimError(f"the processes of torchrun did not meet ({error}): start them again") from None
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes of a tensor of equal shape; no gradient."""
        if self.size == 1:
            return tensor
        result = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(result)
        return result

    def max(self, tensor: Tensor) -> Tensor:
        """Return the largest over the processes, entry by entry; no gradient."""
        result = tensor.detach().clone(memory_format=torch.contiguous_format)
        if self.size > 1:
            dist.all_reduce(result, dist.ReduceOp.MAX)
        return result

    def chosen(self, names: Sequence[str], by_leader: Sequence[str]) -> list[str]:
        """Return those of `names`, which all processes have, that the leader has chosen."""
        mask = torch.tensor([name in set(by_leader) for name in names], dtype=torch.uint8)
        if self.size > 1:
            dist.broadcast(mask, 0)
        return [name for name, wanted in zip(names, mask.tolist(), strict=True) if wanted]

    def agree(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors by the leader's, so that rounding does not drive replicas apart."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def meet(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()
