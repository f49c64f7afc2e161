"""Checkpoints of a training as a folder of safetensors and JSON, and what decides whether one may be resumed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from relsim.crew import Crew
from relsim.errors import RelsimError
from relsim.storage import atomic_file, atomic_folder, one_line, read_json, refuse_links, write_json

MANIFEST = "checkpoint.json"
_TENSORS = "state.safetensors"
_PARTS = ("settings", "progress")
_GROUPS = ("model", "best", "optimiser")


class Checkpoints:
    """The checkpoints of a training in a folder: of one process, or of a crew, of which each keeps its own part.

    The parts of a crew go to a folder for their epoch; the manifest, which the leader replaces when all parts are
    there, says which epoch counts. So a kill at any moment leaves a checkpoint that is whole.
    """

    def __init__(self, folder: Path, crew: Crew) -> None:
        self._folder, self._crew = folder, crew

    def save(self, groups: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, Any], progress: Any) -> None:
        """Write groups of tensors (`model`, `best`, `optimiser`) with settings and progress; whole or not at all."""
        settings = {**settings, "processes": self._crew.size}
        if self._crew.size == 1:
            save(self._folder, groups, settings, progress)
            return
        part = self._part(progress["epoch"])
        part.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(part) as scratch:
            save_file(_flat(groups), scratch)
        self._crew.meet()
        if self._crew.leads:
            with atomic_file(self._folder / MANIFEST) as scratch:
                write_json(scratch, _manifest(settings, progress))
            for old in self._folder.glob("epoch-*"):
                if old != part.parent:
                    shutil.rmtree(old, ignore_errors=True)
        self._crew.meet()

    def load(
        self, settings: Mapping[str, Any], device: torch.device
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """Return the groups of tensors and the progress, or none where there is no checkpoint yet.

        Raises:
            RelsimError: as `load`; another number of processes is another setting.
        """
        settings = {**settings, "processes": self._crew.size}
        if self._crew.size == 1:
            return load(self._folder, settings, device)
        self._crew.meet()  # nobody writes while another still reads
        if not (self._folder / MANIFEST).is_file() and not _strange(self._folder):
            return None
        progress = _progress(self._folder, settings)
        return _groups(self._folder, self._part(progress["epoch"]), device), progress

    def remove(self) -> None:
        """Remove the folder."""
        self._crew.meet()
        if self._crew.leads:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _part(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch}" / f"{self._crew.rank + 1}-of-{self._crew.size}.safetensors"


def save(folder: Path, groups: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, Any], progress: Any) -> None:
    """Write the checkpoint of one process; whole or not at all."""
    with atomic_folder(folder, MANIFEST) as scratch:
        save_file(_flat(groups), scratch / _TENSORS)
        write_json(scratch / MANIFEST, _manifest(settings, progress))


def load(
    folder: Path, settings: Mapping[str, Any], device: torch.device
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """Return the groups of tensors and the progress, or none where there is no checkpoint yet.

    Raises:
        RelsimError: the folder is something else or is damaged, or was made with other settings or other facts.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    progress = _progress(folder, settings)
    return _groups(folder, folder / _TENSORS, device), progress


def _strange(folder: Path) -> bool:
    """Whether a folder without a manifest holds anything but the parts of an epoch that was not completed."""
    return folder.exists() and not (folder.is_dir() and all(p.name.startswith("epoch-") for p in folder.iterdir()))


def _flat(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{group}/{key}": value.contiguous() for group, part in groups.items() for key, value in part.items()}


def _manifest(settings: Mapping[str, Any], progress: Any) -> dict[str, Any]:
    return {"kind": "relsim-checkpoint", "settings": dict(settings), "progress": progress}


def _progress(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The progress in the manifest of a folder, which was made with these settings."""
    if not (folder / MANIFEST).is_file():
        raise RelsimError(f"{folder}: stands where checkpoints go and holds no {MANIFEST}: move it, or remove it")
    manifest = read_json(folder / MANIFEST, "checkpoint")
    if manifest.get("kind") != "relsim-checkpoint" or not all(isinstance(manifest.get(k), dict) for k in _PARTS):
        raise RelsimError(f"{folder}: damaged (no {' or no '.join(_PARTS)}): remove it and start again")
    differing = [key for key, value in settings.items() if manifest["settings"].get(key) != value]
    if differing:
        raise RelsimError(f"{folder}: holds a training with other {', '.join(differing)}: use the same, or remove it")
    progress: dict[str, Any] = manifest["progress"]
    return progress


def _groups(folder: Path, file: Path, device: torch.device) -> dict[str, dict[str, Tensor]]:
    refuse_links(file)
    try:
        flat = load_file(file, device=str(device))
    except Exception as error:  # whatever safetensors says of a truncated or foreign file
        raise RelsimError(f"{folder}: damaged ({one_line(error)}): remove it and start again") from None
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in flat.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = value
    if missing := sorted(set(_GROUPS) - set(groups)):
        raise RelsimError(f"{folder}: damaged (no tensors of {', '.join(missing)}): remove it and start again")
    return groups
