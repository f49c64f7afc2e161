"""Models on disk: a folder of safetensors and JSON. Reading one runs no code from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from relsim.denormals import zero_denormals_
from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.neural import ENTITY_ROWS, NeuralDistribution
from relsim.registry import KINDS, class_of
from relsim.storage import atomic_folder, check_source, one_line, read_json, write_json

MANIFEST = "model.json"
TENSORS = "model.safetensors"
Tensors = dict[str, Tensor]


def save_model(model: FactDistribution, path: str | Path) -> None:
    """Write a model as a folder: `model.json`, `entities.json`, `model.safetensors`; it appears whole or not at all.

    Raises:
        RelsimError: `path` exists and is not a model folder.
    """
    with atomic_folder(path, MANIFEST) as folder:
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, folder / TENSORS)
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
    with _readable(path) as (folder, description):
        model = _outline(folder, description)
        model.load_state_dict(load_file(folder / TENSORS))
        zero_denormals_(model)
    return model.eval()


def read_model(path: str | Path, parts: Mapping[str, Callable[[int], slice]]) -> tuple[NeuralDistribution, Tensors]:
    """Read a neural model in part: its outline, on the meta device, and its state, of which `parts` says which rows.

    Raises:
        RelsimError: the folder is not a model, is damaged, or holds no neural model.
    """
    with _readable(path) as (folder, description):
        with torch.device("meta"):
            model = _outline(folder, description)
        if not isinstance(model, NeuralDistribution):
            raise RelsimError(f"{path}: a {model.kind} model is not trained: read it whole")
        state = {}
        with safe_open(folder / TENSORS, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118, it is no dictionary
                rows = file.get_slice(key)
                state[key] = rows[parts[key](rows.get_shape()[0])] if key in parts else file.get_tensor(key)
        if state.keys() != model.state_dict().keys():
            raise KeyError("tensors of another model")
        model.support = state["support"]
    return model, state


def kind_at(path: str | Path) -> str:
    """Return the kind of the model in a folder, one of `relsim.registry.KINDS`.

    Raises:
        RelsimError: the folder is not a model, or is damaged.
    """
    with _readable(path) as (_, description):
        return str(description["kind"])


@contextmanager
def _readable(path: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folder and its description; what goes wrong with them becomes one line."""
    folder = Path(path)
    check_source(folder, "a model")
    description = read_json(folder / MANIFEST, "model")
    if str(description.get("kind")) not in KINDS or description.get("format") != 1:
        raise RelsimError(f"{folder}: not a model of this version: make one with `relsim fit`")
    try:
        yield folder, description
    except RelsimError:
        raise
    except Exception as error:  # whatever safetensors, json and torch say of truncated or foreign files
        raise RelsimError(f"{folder}: damaged ({one_line(error)}): run `relsim fit` again") from None


def _outline(folder: Path, description: dict[str, Any]) -> FactDistribution:
    """The model that a folder describes, without its parameters."""
    entities = _names(json.loads((folder / "entities.json").read_text(encoding="utf-8")))
    model = class_of(str(description["kind"]))(entities, _names(description["relations"]), **description["config"])
    model.meta = dict(description["meta"])
    return model


def fingerprint(model: FactDistribution) -> str:
    """Return a SHA-256 over what tells a model from others, in hexadecimal.

    Of what has a row for each entity, which may be spread over processes, sums and sums of squares enter.
    """
    digest = hashlib.sha256(json.dumps([model.kind, model.config(), model.entities, model.relations]).encode())
    for key, value in sorted(model.state_dict().items()):
        if key in ENTITY_ROWS:
            wide = value.double()
            value = model.total(torch.stack([wide.sum(dim=0), wide.square().sum(dim=0)]))
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _names(value: Any) -> list[str]:
    if not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise TypeError("expected a list of names")
    return value
