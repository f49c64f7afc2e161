"""What incremental decoding remembers: the keys and values of an attention module."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """The projected keys and values that one `MultiheadAttention` has seen for one batch of sequences.

    The caller makes one per attention module, hands it to every step of the forward, and throws it away at the end.
    After n steps the outputs equal those of one causal forward over all n positions.

    Args:
        static: keep the first keys and values and ignore all later ones: for attention to a memory that stays.
    """

    def __init__(self, static: bool = False) -> None:
        self.static = static
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of positions held."""
        return 0 if self.key is None else self.key.shape[-2]

    def held(self) -> tuple[Tensor, Tensor] | None:
        """Return keys and values if they are all there will ever be, else None."""
        return None if not self.static or self.key is None or self.value is None else (self.key, self.value)

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new positions, (N, heads, S, head_dim); return all.

        Raises:
            ValueError: the batch differs from that of the positions held.
        """
        if self.key is not None and self.value is not None:
            if self.key.shape[0] != key.shape[0]:
                raise ValueError(
                    f"expected a batch of {self.key.shape[0]}, the cache's, got {key.shape[0]}: start a new cache for "
                    "other sequences, or reorder this one"
                )
            key, value = torch.cat([self.key, key], dim=-2), torch.cat([self.value, value], dim=-2)
        self.key, self.value = key, value
        return key, value

    def reorder(self, index: Tensor) -> None:
        """Replace the batch by its rows `index`, (N'): the survivors of a beam search."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key.index_select(0, index), self.value.index_select(0, index)
