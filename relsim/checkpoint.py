"""Checkpoints of a training as a folder of safetensors and JSON, and what decides whether one may be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from relsim.errors import RelsimError
from relsim.storage import atomic_folder, one_line, read_json, refuse_links, write_json

MANIFEST = "checkpoint.json"
_TENSORS = "state.safetensors"
_PARTS = ("settings", "progress")
_GROUPS = ("model", "best", "optimiser")


def save(folder: Path, groups: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, Any], progress: Any) -> None:
    """Write groups of tensors (`model`, `best`, `optimiser`) with settings and progress; whole or not at all."""
    with atomic_folder(folder, MANIFEST) as scratch:
        flat = {f"{group}/{key}": value.contiguous() for group, part in groups.items() for key, value in part.items()}
        save_file(flat, scratch / _TENSORS)
        write_json(scratch / MANIFEST, {"kind": "relsim-checkpoint", "settings": dict(settings), "progress": progress})


def load(
    folder: Path, settings: Mapping[str, Any], device: torch.device
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """Return the groups of tensors and the progress, or none where there is no checkpoint yet.

    Raises:
        RelsimError: the folder is something else or is damaged, or was made with other settings or other facts.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / MANIFEST).is_file():
        raise RelsimError(f"{folder}: stands where checkpoints go and holds no {MANIFEST}: move it, or remove it")
    manifest = read_json(folder / MANIFEST, "checkpoint")
    if manifest.get("kind") != "relsim-checkpoint" or not all(isinstance(manifest.get(k), dict) for k in _PARTS):
        raise RelsimError(f"{folder}: damaged (no {' or no '.join(_PARTS)}): remove it and start again")
    differing = [key for key, value in settings.items() if manifest["settings"].get(key) != value]
    if differing:
        raise RelsimError(f"{folder}: holds a training with other {', '.join(differing)}: use the same, or remove it")
    refuse_links(folder / _TENSORS)
    try:
        flat = load_file(folder / _TENSORS, device=str(device))
    except Exception as error:  # whatever safetensors says of a truncated or foreign file
        raise RelsimError(f"{folder}: damaged ({one_line(error)}): remove it and start again") from None
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in flat.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = value
    if missing := sorted(set(_GROUPS) - set(groups)):
        raise RelsimError(f"{folder}: damaged (no tensors of {', '.join(missing)}): remove it and start again")
    return groups, manifest["progress"]
