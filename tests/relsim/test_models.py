"""Models and checkpoints come back from disk as they were, or not at all; and nothing that is read is ever run."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import relsim
from relsim import checkpoint
from relsim.counts import CountsDistribution
from relsim.data import nations
from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.estimators import Enumerate
from relsim.mlp import MLPDistribution
from relsim.models import load_model, save_model
from relsim.registry import class_of
from relsim.training import fit_counts
from tests.relsim.conftest import random_model
from tests.relsim.test_factored import random_classes

NAMES = ["plain", "with space", "東京 😀", "tab\tand\nbreak", '"quoted", \\', "", "<b>&amp;", "‮right to left", "plain "]
FILES = ["entities.json", "model.json", "model.safetensors"]


def mlp(*, bias: bool = True) -> MLPDistribution:
    """A model with odd names, weights of no pattern, and single precision, as training leaves it."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        support = torch.tensor([3, 1, 4])
        model = MLPDistribution(NAMES, NAMES[2:5], support, dim=5, hidden=6, bias=bias, dropout=0.25)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))
    model.meta = {"source": "東京", "valid_nll": 1 / 3, "history": [{"train": 0.1}], "nothing": None}
    return model


def counts() -> CountsDistribution:
    return fit_counts(nations())


MODELS: dict[str, Callable[[], FactDistribution]] = {
    "mlp": mlp,
    "mlp without bias": lambda: mlp(bias=False),
    "counts": counts,
    "classes": lambda: random_classes(9, 3).float(),
}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def message(folder: Path) -> str:
    """What is said of a folder that is not a sound model: one line with the folder and a remedy."""
    with pytest.raises(RelsimError) as caught:
        load_model(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(folder))
    assert said.count(": ") >= 2
    return said


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(mlp(), tmp_path / "model")
    return tmp_path / "model"


# round trips


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().eval()
    save_model(model, tmp_path / "model")
    back = load_model(tmp_path / "model")
    assert type(back) is type(model)
    assert str(back) == str(model)
    assert (back.entities, back.relations, back.meta) == (model.entities, model.relations, model.meta)
    assert back.config() == model.config()
    assert not back.training
    assert list(back.state_dict()) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert back.state_dict()[key].dtype == value.dtype
        assert torch.equal(back.state_dict()[key], value), key
    heads, relations = torch.arange(len(model.entities)), torch.arange(len(model.relations))
    assert torch.equal(back.head_log_prob(relations), model.head_log_prob(relations))
    assert torch.equal(back.tail_log_prob(heads, relations[:1]), model.tail_log_prob(heads, relations[:1]))


@pytest.mark.parametrize("name", MODELS)
def test_saving_what_was_loaded_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    save_model(MODELS[name](), tmp_path / "first")
    save_model(load_model(tmp_path / "first"), tmp_path / "second")
    assert files(tmp_path / "first") == files(tmp_path / "second")
    assert sorted(files(tmp_path / "first")) == FILES


def test_a_loaded_model_gives_the_same_divergences(tmp_path: Path) -> None:
    model = mlp().eval()
    save_model(model, tmp_path / "model")
    expected, found = (Enumerate().divergence(m).kl for m in (model, load_model(tmp_path / "model")))
    assert (expected == found).all()


def test_saving_changes_neither_the_model_nor_its_mode(tmp_path: Path) -> None:
    model = mlp().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_model(model, tmp_path / "model")
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_view_of_a_larger_table_is_saved_as_what_it_shows(tmp_path: Path) -> None:
    model = mlp()
    model.entity.data = torch.randn(5, 2 * len(NAMES)).T[::2]  # neither contiguous nor alone in its storage
    save_model(model, tmp_path / "model")
    back = load_model(tmp_path / "model")
    assert isinstance(back, MLPDistribution)
    assert torch.equal(back.entity, model.entity)


def test_denormal_weights_are_zero_after_loading(tmp_path: Path) -> None:
    model = mlp()
    with torch.no_grad():
        model.tail_mlp.second.weight[0] = 1e-41
    save_model(model, tmp_path / "model")
    back = load_model(tmp_path / "model")
    assert isinstance(back, MLPDistribution)
    assert not back.tail_mlp.second.weight[0].any()
    assert torch.equal(back.tail_mlp.second.weight[1:], model.tail_mlp.second.weight[1:])


def test_a_model_replaces_a_model_and_nothing_else(saved: Path) -> None:
    (saved / "stray").write_text("old")
    save_model(counts(), saved)
    assert sorted(files(saved)) == FILES
    assert isinstance(load_model(saved), CountsDistribution)
    work = saved.parent / "work"
    work.mkdir()
    (work / "thesis").write_text("years")
    with pytest.raises(RelsimError, match=r"work: exists and holds no model\.json, so it is not overwritten"):
        save_model(counts(), work)
    assert files(work) == {"thesis": b"years"}
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model", "work"]


def test_a_model_that_cannot_be_written_whole_leaves_the_old_one(saved: Path) -> None:
    before = files(saved)
    model = mlp()
    model.meta["cause"] = object()  # which JSON cannot hold, and which comes last
    with pytest.raises(TypeError):
        save_model(model, saved)
    assert files(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


# what is not a sound model


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_one_line(saved: Path, name: str, share: float) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(len(content) * share)])
    said = message(saved)
    assert "damaged (" in said
    assert said.endswith(" again")


@pytest.mark.parametrize("name", ["entities.json", "model.safetensors"])
def test_a_missing_file_is_damage(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert re.search("damaged .*No such file", message(saved))


def test_a_folder_without_the_description_is_no_model(saved: Path) -> None:
    (saved / "model.json").unlink()
    assert message(saved) == f"{saved}: is not a model: `relsim fit` makes one of a KB"


def test_a_path_that_is_not_there_and_a_file_are_no_models(tmp_path: Path) -> None:
    assert message(tmp_path / "no") == f"{tmp_path / 'no'}: no such folder: `relsim fit` makes one of a KB"
    (tmp_path / "facts.tsv").write_text("")
    said = message(tmp_path / "facts.tsv")
    assert said == f"{tmp_path / 'facts.tsv'}: is a file, not a model: `relsim fit` makes one of a KB"


def test_a_kb_and_a_comparison_are_named_for_what_they_are(tmp_path: Path) -> None:
    nations().save(tmp_path / "kb")
    assert "is a KB, not a model" in message(tmp_path / "kb")
    Enumerate().divergence(random_model(4, 2)).save(tmp_path / "comparison")
    assert "is a comparison, not a model" in message(tmp_path / "comparison")


DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "a later format": {"format": 2},
    "no format": {"format": None},
    "an unknown kind": {"kind": "transformer"},
    "a kind that is no name": {"kind": ["mlp"]},
    "another kind": {"kind": "counts"},
    "no relations": {"relations": None},
    "relations that are no list": {"relations": "abc"},
    "relations that are no names": {"relations": [1, 2, 3]},
    "too few relations": {"relations": ["a"]},
    "no config": {"config": None},
    "an unknown setting": {"config": {"dim": 5, "hidden": 6, "depth": 3}},
    "another width": {"config": {"dim": 5, "hidden": 7}},
    "a width that is no number": {"config": {"dim": "5", "hidden": 6}},
    "a width beyond any memory": {"config": {"dim": 10**15, "hidden": 6}},
    "no bias": {"config": {"dim": 5, "hidden": 6, "bias": False}},
    "no meta": {"meta": None},
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_description_that_does_not_fit_is_one_line(saved: Path, case: str) -> None:
    description = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    (saved / "model.json").write_text(json.dumps({**description, **DESCRIPTIONS[case]}), encoding="utf-8")
    said = message(saved)
    assert "damaged (" in said or "not a model of this version" in said
    assert "relsim fit" in said


@pytest.mark.parametrize("key", ["kind", "format", "config", "relations", "meta"])
def test_a_description_with_a_part_missing_is_one_line(saved: Path, key: str) -> None:
    description = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    del description[key]
    (saved / "model.json").write_text(json.dumps(description), encoding="utf-8")
    assert "relsim fit" in message(saved)


@pytest.mark.parametrize("content", ["{}", "3", '"abcdefghi"', "[1, 2, 3]", '["a"]', "[" * 100_000, '["\\ud800"'])
def test_entities_that_are_no_list_of_as_many_names_are_one_line(saved: Path, content: str) -> None:
    (saved / "entities.json").write_text(content)
    assert "damaged (" in message(saved)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"kind": ' * 100_000, "9" * 10_000, "NaN", "null"])
def test_a_description_that_json_chokes_on_is_one_line(saved: Path, content: str) -> None:
    (saved / "model.json").write_text(content)
    assert "damaged (" in message(saved)


def test_tensors_of_another_model_are_damage(saved: Path, tmp_path: Path) -> None:
    save_model(counts(), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved / "model.safetensors")
    assert "damaged (Error(s) in loading state_dict for MLPDistribution: " in message(saved)


@pytest.mark.parametrize("change", ["more", "fewer", "renamed", "reshaped"])
def test_tensors_that_do_not_fit_are_damage(saved: Path, change: str) -> None:
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    table = tensors.pop("entity")
    tensors |= {
        "more": {"entity": table, "x": table.clone()},
        "renamed": {"e": table},
        "reshaped": {"entity": table.T},
    }.get(change, {})
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, saved / "model.safetensors")
    assert "damaged (" in message(saved)


# nothing that is read is run


class Trap:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_in_the_place_of_a_file_is_not_run(saved: Path, name: str, writer: str) -> None:
    sprung = saved.parent / "sprung"
    if writer == "pickle":
        (saved / name).write_bytes(pickle.dumps({"entity": Trap(sprung)}))
    else:
        torch.save({"entity": Trap(sprung)}, saved / name)
    assert "damaged (" in message(saved)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "the trap does not work, so that nothing was shown"


@pytest.mark.parametrize("name", MODELS)
def test_neither_saving_nor_loading_pickles(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]()

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("pickle was used")

    for module, function in [(pickle, "load"), (pickle, "loads"), (pickle, "dump"), (pickle, "dumps")]:
        monkeypatch.setattr(module, function, refuse)
    for function in ("load", "save"):
        monkeypatch.setattr(torch, function, refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "Pickler", refuse)
    save_model(model, tmp_path / "model")
    load_model(tmp_path / "model")


@pytest.mark.parametrize("name", MODELS)
def test_the_files_are_json_and_safetensors_through_and_through(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    save_model(model, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "entities.json").read_text(encoding="utf-8")) == model.entities
    description = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    assert class_of(description["kind"]) is type(model)
    tensors = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    assert set(tensors) == set(model.state_dict())


# checkpoints

GROUPS = {
    "model": {"entity": torch.randn(4, 3), "support": torch.arange(5)},
    "best": {"entity": torch.zeros(4, 3), "a/b/c": torch.tensor(float("nan"))},
    "optimiser": {"0/step": torch.tensor(3.0), "0/exp_avg": torch.randn(2, 2).T, "1/flag": torch.tensor(True)},
}
SETTINGS = {"epochs": 3, "lr": 2e-3, "batch": None, "facts": "abc"}
PROGRESS = {"epoch": 2, "best_nll": 1.5, "history": [{"train": 0.1}]}
CPU = torch.device("cpu")


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "model.training", GROUPS, SETTINGS, PROGRESS)
    return tmp_path / "model.training"


def checkpoint_message(folder: Path, settings: dict[str, Any] = SETTINGS) -> str:
    with pytest.raises(RelsimError) as caught:
        checkpoint.load(folder, settings, CPU)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(folder))
    return said


def test_a_checkpoint_comes_back_as_it_was(begun: Path) -> None:
    found = checkpoint.load(begun, SETTINGS, CPU)
    assert found is not None
    groups, progress = found
    assert progress == PROGRESS
    assert {key: set(part) for key, part in groups.items()} == {key: set(part) for key, part in GROUPS.items()}
    for group, part in GROUPS.items():
        for key, value in part.items():
            assert groups[group][key].dtype == value.dtype
            torch.testing.assert_close(groups[group][key], value, rtol=0, atol=0, equal_nan=True)


def test_a_later_checkpoint_replaces_the_earlier(begun: Path) -> None:
    checkpoint.save(begun, GROUPS, SETTINGS, {**PROGRESS, "epoch": 3})
    found = checkpoint.load(begun, SETTINGS, CPU)
    assert found is not None
    assert found[1]["epoch"] == 3
    assert [path.name for path in begun.parent.iterdir()] == ["model.training"]


def test_infinity_survives(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "x", GROUPS, SETTINGS, {"best_nll": float("inf")})
    found = checkpoint.load(tmp_path / "x", SETTINGS, CPU)
    assert found is not None
    assert found[1] == {"best_nll": float("inf")}


def test_where_nothing_is_nothing_is_resumed(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "no", SETTINGS, CPU) is None
    (tmp_path / "empty").mkdir()
    assert checkpoint.load(tmp_path / "empty", SETTINGS, CPU) is None


@pytest.mark.parametrize("key", SETTINGS)
def test_other_settings_are_refused_by_name(begun: Path, key: str) -> None:
    said = checkpoint_message(begun, {**SETTINGS, key: "other"})
    assert said == f"{begun}: holds a training with other {key}: use the same, or remove it"


def test_a_setting_that_the_checkpoint_does_not_know_is_refused(begun: Path) -> None:
    assert "with other schedule: " in checkpoint_message(begun, {**SETTINGS, "schedule": "cosine"})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", ["checkpoint.json", "state.safetensors"])
def test_a_truncated_checkpoint_is_one_line(begun: Path, name: str, share: float) -> None:
    content = (begun / name).read_bytes()
    (begun / name).write_bytes(content[: int(len(content) * share)])
    assert "damaged (" in checkpoint_message(begun)


def test_a_checkpoint_without_its_tensors_is_damaged(begun: Path) -> None:
    (begun / "state.safetensors").unlink()
    assert "damaged (" in checkpoint_message(begun)


@pytest.mark.parametrize("key", ["kind", "settings", "progress"])
def test_a_checkpoint_with_a_part_missing_is_damaged(begun: Path, key: str) -> None:
    manifest = json.loads((begun / "checkpoint.json").read_text())
    (begun / "checkpoint.json").write_text(json.dumps({**manifest, key: None}))
    assert "damaged (" in checkpoint_message(begun)


@pytest.mark.parametrize("group", GROUPS)
def test_a_checkpoint_with_a_group_of_tensors_missing_is_damaged(tmp_path: Path, group: str) -> None:
    checkpoint.save(tmp_path / "x", {key: part for key, part in GROUPS.items() if key != group}, SETTINGS, PROGRESS)
    said = checkpoint_message(tmp_path / "x")
    assert said == f"{tmp_path / 'x'}: damaged (no tensors of {group}): remove it and start again"


def test_what_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "model.training"
    place.mkdir()
    (place / "notes").write_text("years")
    assert "stands where checkpoints go and holds no checkpoint.json: move it" in checkpoint_message(place)
    with pytest.raises(RelsimError, match=r"holds no checkpoint\.json, so it is not overwritten"):
        checkpoint.save(place, GROUPS, SETTINGS, PROGRESS)
    assert files(place) == {"notes": b"years"}


def test_a_pickle_in_the_place_of_the_state_is_not_run(begun: Path) -> None:
    sprung = begun.parent / "sprung"
    torch.save({"model/entity": Trap(sprung)}, begun / "state.safetensors")
    assert "damaged (" in checkpoint_message(begun)
    assert not sprung.exists()


AUDIT = """
import os, sys
from pathlib import Path
import torch
from relsim.errors import RelsimError
from relsim.models import load_model
opened, watching = [], False
def hook(event, arguments):
    if watching and event in ("open", "os.listdir", "os.scandir", "os.system", "subprocess.Popen", "socket.connect"):
        opened.append((event, str(arguments[0])))
sys.addaudithook(hook)
folder = Path(sys.argv[1])
watching = True
try:
    load_model(folder)
except RelsimError as error:
    print("refused", error, file=sys.stderr)
watching = False
inside = os.path.realpath(folder)
for event, path in opened:
    if not os.path.realpath(path).startswith(inside + os.sep) and os.path.realpath(path) != inside:
        if not path.startswith((sys.prefix, sys.base_prefix)) and not path.endswith((".py", ".pyc")):
            print(event, path)
"""


@pytest.mark.parametrize("key", ["kind", "config", "relations", "meta", "format", "surplus"])
def test_paths_in_a_manifest_lead_nowhere(saved: Path, key: str) -> None:
    """Whatever a stranger writes into model.json, loading opens no file outside of the folder, and runs nothing."""
    manifest = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    secret = saved.parent / "secret.safetensors"
    secret.write_bytes((saved / "model.safetensors").read_bytes())
    away = "../secret.safetensors"
    hostile = {
        "config": manifest["config"] | {"__class__": away, "entity": str(secret)},
        "relations": [away] * len(manifest["relations"]),
        "meta": {"source": away, "file": str(secret), "__reduce__": ["os.system", "touch x"]},
    }
    manifest[key] = hostile.get(key, away)
    (saved / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    root = Path(relsim.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}"}
    line = [sys.executable, "-c", AUDIT, str(saved)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert ("refused" in done.stderr) == (key in ("kind", "config", "format"))
