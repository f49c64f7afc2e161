"""Kept designs: the same answers without computing them again, and nothing in a folder is believed unseen."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import relsim.designs
import relsim.estimators
from relsim.cli import main
from relsim.design import Design
from relsim.designs import FOLDER, KeptDesigns, key
from relsim.errors import RelsimError
from relsim.estimators import DesignEstimator, RaoBlackwell
from relsim.models import load_model, save_model
from relsim.search import nearest
from relsim.similar import Neighbour
from relsim.storage import sha256, write_json
from tests.relsim.conftest import random_model

ESTIMATOR = RaoBlackwell(mass=1.0, samples=40)


def ask(folder: Path, estimator: DesignEstimator = ESTIMATOR) -> list[Neighbour]:
    return nearest(load_model(folder), "r3", 4, estimator=KeptDesigns(estimator, folder))[0]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the designs that were computed."""
    made: list[int] = []
    compute = relsim.estimators.sampled_design

    def noted(*arguments: object, **settings: object) -> Design:
        design = compute(*arguments, **settings)  # type: ignore[arg-type]
        made.append(len(design.sample.heads))
        return design

    monkeypatch.setattr(relsim.estimators, "sampled_design", noted)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(random_model(150, 12, seed=5).float(), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def asked(folder: Path) -> list[Neighbour]:
    """What a search without anything kept answers; a design is kept now."""
    expected = nearest(load_model(folder), "r3", 4, estimator=ESTIMATOR)[0]
    assert ask(folder) == expected
    return expected


def only(folder: Path) -> Path:
    (place,) = (folder / FOLDER).iterdir()
    return place


def seal(place: Path) -> None:
    write_json(place / "design.block.json", {"sha256": sha256(place / "design.safetensors"), "cpu_seconds": 0.0})


def test_a_design_is_computed_once_and_answers_are_the_same(
    folder: Path, asked: list[Neighbour], counted: list[int]
) -> None:
    assert ask(folder) == asked
    assert counted == []


def test_the_command_keeps_the_design(folder: Path, counted: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for _ in range(2):
        assert main(["similar", str(folder), "r3", "--samples", "30"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert counted == [30]
    assert main(["redundant", str(folder), "--samples", "30"]) == 0
    assert counted == [30]


@pytest.mark.parametrize(
    "other",
    [
        RaoBlackwell(mass=1.0, samples=41),
        RaoBlackwell(mass=0.9, samples=40),
        RaoBlackwell(mass=1.0, samples=40, seed=1),
    ],
)
def test_other_settings_have_their_own(
    folder: Path, asked: list[Neighbour], counted: list[int], other: RaoBlackwell
) -> None:
    assert ask(folder, other) == nearest(load_model(folder), "r3", 4, estimator=other)[0]
    assert len(counted) == 2
    assert len(list((folder / FOLDER).iterdir())) == 2


@torch.no_grad()
def test_a_bit_of_a_weight_makes_another_key(folder: Path) -> None:
    model = load_model(folder)
    before = key(model, ESTIMATOR)
    entity = model.get_parameter("entity")
    entity[7, 2] = torch.nextafter(entity[7, 2], torch.tensor(9.0))
    assert key(model, ESTIMATOR) != before
    entity[7, 2] = torch.nextafter(entity[7, 2], torch.tensor(-9.0))
    assert key(model, ESTIMATOR) == before
    entity[[3, 4]] = entity[[4, 3]]  # sums over the table stay as they were
    assert key(model, ESTIMATOR) != before


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "pickled", "unsealed", "manifest"])
def test_damage_is_mended_in_silence(folder: Path, asked: list[Neighbour], counted: list[int], damage: str) -> None:
    place = only(folder)
    file = place / "design.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "pickled":
        file.write_bytes(pickle.dumps({"heads": 1}))
        seal(place)
    elif damage == "unsealed":
        (place / "design.block.json").unlink()
    else:
        (place / "blocks.json").write_text("[" * 100_000)
    assert ask(folder) == asked
    assert counted == [40]
    assert ask(folder) == asked
    assert counted == [40]  # it was kept again


HOSTILE = {
    "heads beyond the table": ("sample.heads", lambda x: x + 140),
    "heads below it": ("sample.heads", lambda x: x - 140),
    "a head twice": ("sample.heads", lambda x: x.clamp(max=50)),
    "negative weights": ("sample.weight", lambda x: -x),
    "no numbers": ("sample.weight", lambda x: x / 0),
    "integers": ("sample.weight", lambda x: x.long()),
    "fewer relations": ("natural", lambda x: x[:-1]),
    "other relations": ("relations", lambda x: x.flip(0)),
    "another width": ("mean", lambda x: x[:, :-1]),
    "a scalar": ("natural", lambda x: x[0, 0]),
    "nothing": ("partition", lambda x: x[:0]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_design_that_cannot_be_one_of_the_model_is_not_used(
    folder: Path, asked: list[Neighbour], counted: list[int], case: str
) -> None:
    place = only(folder)
    tensors = load_file(place / "design.safetensors")
    name, change = HOSTILE[case]
    save_file({**tensors, name: change(tensors[name]).contiguous()}, place / "design.safetensors")
    seal(place)
    assert ask(folder) == asked
    assert counted == [40]


@pytest.mark.parametrize("what", ["design.safetensors", "design.block.json", "blocks.json"])
def test_links_are_not_followed(folder: Path, asked: list[Neighbour], counted: list[int], what: str) -> None:
    outside = folder.parent / "outside"
    (only(folder) / what).rename(outside)
    content = outside.read_bytes()
    (only(folder) / what).symlink_to(outside)
    assert ask(folder) == asked
    assert counted == [40]
    assert outside.read_bytes() == content


def test_a_linked_design_is_neither_read_nor_written(folder: Path, asked: list[Neighbour], counted: list[int]) -> None:
    place, outside = only(folder), folder.parent / "outside"
    place.rename(outside)
    place.symlink_to(outside)
    before = {file.name: file.read_bytes() for file in outside.iterdir()}
    assert ask(folder) == asked
    assert counted == [40]
    assert {file.name: file.read_bytes() for file in outside.iterdir()} == before


def test_a_linked_folder_of_designs_is_refused_with_the_model(folder: Path, asked: list[Neighbour]) -> None:
    (folder / FOLDER).rename(folder.parent / "outside")
    (folder / FOLDER).symlink_to(folder.parent / "outside")
    with pytest.raises(RelsimError, match="designs: is a symbolic link"):
        load_model(folder)


def test_a_pipe_in_the_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "entities.json").unlink()
    os.mkfifo(folder / "entities.json")
    with pytest.raises(RelsimError, match=r"entities.json: is a pipe or a device"):
        load_model(folder)


def test_where_nothing_can_be_kept_the_answer_is_the_same(folder: Path, counted: list[int]) -> None:
    (folder / FOLDER).write_text("in the way")
    expected = nearest(load_model(folder), "r3", 4, estimator=ESTIMATOR)[0]
    assert [ask(folder), ask(folder)] == [expected, expected]
    assert counted == [40] * 3


def test_what_is_kept_is_bounded_and_the_least_recently_used_goes(
    folder: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relsim.designs, "MOST_BYTES", 1000)
    ask(folder)
    assert not (folder / FOLDER).exists()  # larger than the bound
    monkeypatch.setattr(relsim.designs, "MOST_BYTES", 1 << 20)
    ask(folder)
    size = sum(file.stat().st_size for file in only(folder).iterdir())
    monkeypatch.setattr(relsim.designs, "MOST_BYTES", int(2.5 * size))
    first, second, third = (RaoBlackwell(mass=1.0, samples=40, seed=seed) for seed in range(3))
    ask(folder, second)
    model = load_model(folder)
    for age, estimator in enumerate((second, first)):
        os.utime(folder / FOLDER / key(model, estimator), (1e9 + age, 1e9 + age))
    ask(folder, second)  # used: now the first is the oldest
    ask(folder, third)
    assert {p.name for p in (folder / FOLDER).iterdir()} == {key(model, e) for e in (second, third)}


@torch.no_grad()
def test_some_of_the_relations_are_not_kept(folder: Path) -> None:
    model = load_model(folder)
    part = torch.tensor([2, 5, 7])
    found = KeptDesigns(ESTIMATOR, folder).design(model, part)
    assert torch.equal(found.relations, part)
    assert not (folder / FOLDER).exists()
