"""The result of a comparison: KL divergences between relations, with their parts and standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from relsim.errors import RelsimError, unknown_name
from relsim.storage import atomic_folder, read_json, refuse_links, write_json

MANIFEST = "divergence.json"
_TENSORS = "divergence.safetensors"
_ARRAYS = ("kl", "stderr", "head", "tail")


@dataclass(frozen=True)
class Divergence:
    """KL(a || b) between the fact distributions of R relations, in nats; row a, column b.

    Attributes:
        relations: names, length R.
        kl: (R, R) float64, `head + tail`; the diagonal is 0.
        stderr: (R, R) float64, standard error of `kl` from the sampling of heads; 0 where nothing was sampled.
        head: (R, R) float64, KL(p(h|a) || p(h|b)); exact, and a lower bound on the true divergence.
        tail: (R, R) float64, the mean over h ~ p(h|a) of KL(p(t|h,a) || p(t|h,b)).
        support: (R,) int64, the number of distinct facts that each relation was fitted on.
        meta: what was run: the estimator with its settings, seed, seconds of CPU.
    """

    relations: Sequence[str]
    kl: NDArray[np.float64]
    stderr: NDArray[np.float64]
    head: NDArray[np.float64]
    tail: NDArray[np.float64]
    support: NDArray[np.int64]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.relations)
        for name in _ARRAYS:
            shape = getattr(self, name).shape
            if shape != (size, size):
                raise ValueError(f"expected {name} of shape ({size}, {size}) for {size} relations, got {shape}")

    def index(self, name: str) -> int:
        """Return the row of a relation.

        Raises:
            RelsimError: no relation has that name; the message suggests the nearest ones.
        """
        try:
            return list(self.relations).index(name)
        except ValueError:
            raise unknown_name("relation", name, self.relations) from None

    def save(self, path: str | Path) -> None:
        """Write the result as a folder of safetensors and JSON; it appears whole or not at all.

        Raises:
            RelsimError: `path` exists and is not such a folder.
        """
        with atomic_folder(path, MANIFEST) as folder:
            arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in (*_ARRAYS, "support")}
            save_file(arrays, folder / _TENSORS)
            description = {
                "kind": "relsim-divergence",
                "format": 1,
                "relations": list(self.relations),
                "meta": dict(self.meta),
            }
            write_json(folder / MANIFEST, description)

    @classmethod
    def load(cls, path: str | Path) -> Divergence:
        """Read a folder written by `save`.

        Raises:
            RelsimError: the folder is not a comparison or is damaged.
        """
        folder = Path(path)
        manifest = read_json(folder / MANIFEST, "comparison")
        if manifest.get("kind") != "relsim-divergence":
            raise RelsimError(f"{folder}: not a comparison: make one with `relsim compare`")
        refuse_links(folder / _TENSORS)
        try:
            arrays = load_file(folder / _TENSORS)
            return cls(manifest["relations"], **arrays, meta=manifest["meta"])
        except Exception as error:  # whatever safetensors says of a truncated or foreign file
            raise RelsimError(f"{folder}: damaged ({error}): run `relsim compare` again") from None
