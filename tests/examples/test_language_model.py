"""`examples/language_model.py`: what a model sees, its loss on text that says how well it can do, its length."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from relsim.errors import RelsimError

Make = Callable[[str], Any]
kinds = pytest.mark.parametrize("kind", ["lorentz", "euclidean"])
OPTIONS = argparse.Namespace(dim=8, heads=2, layers=2, context=12)


@kinds
def test_no_letter_sees_the_future(example: Make, kind: str) -> None:
    model = example("language_model").module.GPT(kind, 9, OPTIONS).double().eval()
    text, other = torch.randint(9, (2, 1, 12))
    mixed = torch.cat([text[:, :7], other[:, 7:]], dim=1)
    assert torch.allclose(model(text)[:, :7], model(mixed)[:, :7], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(model(text)[:, 7:], model(mixed)[:, 7:], rtol=1e-3)


@kinds
def test_a_fresh_model_takes_all_letters_for_about_equally_likely(example: Make, kind: str) -> None:
    module = example("language_model").module
    torch.manual_seed(0)
    surprise = -module.GPT(kind, 50, OPTIONS)(torch.randint(50, (8, 12))).log_softmax(-1)
    assert surprise.mean().item() == pytest.approx(math.log(50), abs=0.1)
    assert surprise.std().item() < 0.5


def test_the_loss_of_an_alternating_text_falls_to_nothing_and_that_of_coins_to_one_bit(example: Make) -> None:
    script = example("language_model")
    options = ["--dim", "8", "--layers", "1", "--context", "8", "--steps", "20", "--epochs", "6", "--lr", "0.02"]
    (script.folder / "alternating.txt").write_text("ab" * 1000)
    (script.folder / "coins.txt").write_text("".join("ab"[coin] for coin in torch.randint(2, (4000,)).tolist()))
    for name in ("alternating", "coins"):
        script.run("--data", f"{name}.txt", "--out", name, *options)
    for kind in ("lorentz", "euclidean"):
        certain, coins = (script.result(name)["seeds"][kind][0] for name in ("alternating", "coins"))
        assert certain["loss"] < 0.1
        assert coins["loss"] == pytest.approx(math.log(2), abs=0.05)
        assert coins["bits"] == pytest.approx(coins["loss"] / math.log(2))


def test_the_loss_is_that_of_the_last_tenth_and_the_epoch_is_chosen_on_the_one_before_it(example: Make) -> None:
    """Nine tenths alternate and the last is one of coins: the better a model learns, the worse is its test."""
    script = example("language_model")
    coins = "".join("ab"[coin] for coin in torch.randint(2, (200,)).tolist())
    (script.folder / "turning.txt").write_text("ab" * 900 + coins)
    options = ["--dim", "8", "--layers", "1", "--context", "8", "--steps", "20", "--epochs", "4", "--lr", "0.02"]
    script.run("--data", "turning.txt", "--out", "o", *options)
    for kind in ("lorentz", "euclidean"):
        figures = script.result("o")["seeds"][kind][0]
        entries = [
            json.loads(line) for line in (script.folder / "o" / f"{kind}-0" / "log.jsonl").read_text().splitlines()
        ]
        best = max(entries, key=lambda entry: entry["score"])
        assert (figures["epoch"], figures["valid"]) == (best["epoch"], pytest.approx(-best["score"]))
        assert figures["valid"] < 0.3 < math.log(2) < figures["loss"]


@kinds
def test_what_it_writes_goes_on_from_the_text(example: Make, kind: str) -> None:
    model = example("language_model").module.GPT(kind, 9, OPTIONS).eval()
    text = torch.randint(9, (1, 5))
    longer = model.write(text, 20)
    assert longer.shape == (1, 25)
    assert torch.equal(longer[:, :5], text)
    assert longer.max() < 9


def test_a_text_that_is_too_short_is_said(example: Make) -> None:
    script = example("language_model")
    (script.folder / "short.txt").write_text("no")
    with pytest.raises(RelsimError, match=r"^short.txt: 2 letters are too few: give a longer text or a smaller --con"):
        script.run("--data", "short.txt")


def test_the_script_has_at_most_150_lines(example: Make) -> None:
    assert len(example("language_model").path.read_text(encoding="utf-8").splitlines()) <= 150
