"""Models on disk: a folder of safetensors and JSON. Reading one runs no code from it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from relsim.counts import CountsDistribution
from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.lorentz import LorentzDistribution
from relsim.mlp import MLPDistribution
from relsim.neural import NeuralDistribution
from relsim.storage import atomic_folder, check_source, one_line, read_json, write_json
from relsim.training import zero_denormals_

MANIFEST = "model.json"
NEURAL: dict[str, type[NeuralDistribution]] = {cls.kind: cls for cls in (MLPDistribution, LorentzDistribution)}
KINDS: dict[str, type[FactDistribution]] = {**NEURAL, CountsDistribution.kind: CountsDistribution}


def save_model(model: FactDistribution, path: str | Path) -> None:
    """Write a model as a folder: `model.json`, `entities.json`, `model.safetensors`; it appears whole or not at all.

    Raises:
        RelsimError: `path` exists and is not a model folder.
    """
    with atomic_folder(path, MANIFEST) as folder:
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        (folder / "entities.json").write_text(json.dumps(model.entities, ensure_ascii=False), encoding="utf-8")
        description = {
            "kind": model.kind,
            "format": 1,
            "config": model.config(),
            "relations": model.relations,
            "meta": model.meta,
        }
        write_json(folder / MANIFEST, description)


def load_model(path: str | Path) -> FactDistribution:
    """Read a folder written by `save_model`, in evaluation mode.

    Raises:
        RelsimError: the folder is not a model, or is damaged.
    """
    folder = Path(path)
    check_source(folder, "a model")
    description = read_json(folder / MANIFEST, "model")
    kind = KINDS.get(str(description.get("kind")))
    if kind is None or description.get("format") != 1:
        raise RelsimError(f"{folder}: not a model of this version: make one with `relsim fit`")
    try:
        entities = _names(json.loads((folder / "entities.json").read_text(encoding="utf-8")))
        model = kind(entities, _names(description["relations"]), **description["config"])
        model.load_state_dict(load_file(folder / "model.safetensors"))
        model.meta = dict(description["meta"])
    except Exception as error:  # whatever safetensors, json and torch say of truncated or foreign files
        raise RelsimError(f"{folder}: damaged ({one_line(error)}): run `relsim fit` again") from None
    zero_denormals_(model)
    return model.eval()


def fingerprint(model: FactDistribution) -> str:
    """Return a SHA-256 over the names and parameters of a model, in hexadecimal."""
    digest = hashlib.sha256(json.dumps([model.kind, model.config(), model.entities, model.relations]).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _names(value: Any) -> list[str]:
    if not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise TypeError("expected a list of names")
    return value
