"""Designs kept in the folder of a model, so that a search does not compute again what no question changes.

A design (`relsim.design`) depends on the model and on the estimator's settings. It is kept under a hash of both, and
is checked before use: what is there may be stale, cut off, or put there by somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from relsim.blocks import BlockFolder
from relsim.design import Design
from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.estimators import DesignEstimator

FOLDER = "designs"
MOST_BYTES = 1 << 30  # of all designs of a model
_FORMAT = 1  # changes with what a design means
_BLOCK = "design"


class KeptDesigns(DesignEstimator):
    """An estimator whose designs for all relations of a model are kept in `model`, the model's folder.

    Where they cannot be kept, since the folder may not be written or the design is larger than `MOST_BYTES`, they are
    computed each time. The least recently used go when all of them exceed `MOST_BYTES`.
    """

    def __init__(self, estimator: DesignEstimator, model: str | Path) -> None:
        self.estimator, self._folder = estimator, Path(model) / FOLDER

    def design(self, model: FactDistribution, relations: Tensor) -> Design:
        everything = torch.arange(len(model.relations), device=relations.device)
        if not torch.equal(relations, everything):
            return self.estimator.design(model, relations)
        place = self._folder / key(model, self.estimator)
        kept = _read(place, model)
        if kept is None:
            kept = self.estimator.design(model, relations)
            if _size(kept) <= MOST_BYTES:
                _write(place, kept)
                _tidy(self._folder, place)
        return kept

    def most_heads(self, entities: int) -> int:
        return self.estimator.most_heads(entities)

    def settings(self) -> dict[str, object]:
        return self.estimator.settings()


def key(model: FactDistribution, estimator: DesignEstimator) -> str:
    """Return a SHA-256 over all that a design depends on, in hexadecimal: settings, and each bit of the weights."""
    sizes = len(model.entities), len(model.relations)
    what = [_FORMAT, torch.__version__, model.kind, model.config(), sizes, type(estimator).__name__]
    digest = hashlib.sha256(json.dumps([*what, estimator.settings()], sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(place: Path, model: FactDistribution) -> Design | None:
    """The design in a folder, or none where there is none that could be one of this model."""
    if not place.is_dir() or any(folder.is_symlink() for folder in (place, place.parent)):
        return None
    with suppress(Exception):  # whatever safetensors, json and torch say of what is damaged or foreign
        block = BlockFolder(place, {"format": _FORMAT})
        if not block.missing([_BLOCK]):
            design = Design.of_tensors(block.read(_BLOCK))
            if design.fits(len(model.relations), len(model.entities)):
                with suppress(OSError):  # not ours to touch
                    os.utime(place)
                return design.to(model.support.device)
    return None


def _write(place: Path, design: Design) -> None:
    if any(folder.is_symlink() for folder in (place, place.parent)):
        return
    with suppress(RelsimError, OSError):  # a folder that may not be written, a full disk
        shutil.rmtree(place, ignore_errors=True)  # what is there did not serve
        BlockFolder(place, {"format": _FORMAT}).make_once(_BLOCK, design.tensors)


def _tidy(folder: Path, newest: Path) -> None:
    """Remove the least recently used designs until all of them fit."""
    with suppress(OSError):
        others = sorted((p for p in folder.iterdir() if p != newest), key=lambda p: p.lstat().st_mtime, reverse=True)
        total = _bytes(newest)
        for place in others:
            total += _bytes(place)
            if total > MOST_BYTES and place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)


def _bytes(place: Path) -> int:
    return sum(file.lstat().st_size for file in _files(place))


def _files(place: Path) -> Iterator[Path]:
    return (file for file in place.glob("**/*") if not file.is_dir())


def _size(design: Design) -> int:
    return sum(value.numel() * value.element_size() for value in design.tensors().values())
