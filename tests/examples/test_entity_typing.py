"""`examples/entity_typing.py`: its measures against a count by hand, its splits, its reader."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from relsim.errors import RelsimError

Make = Callable[[str], Any]


def test_scores_of_three_mentions_counted_by_hand(example: Make) -> None:
    """Predicted {a, b}, {c}, {} for {a}, {b, unseen}, {c}."""
    module = example("entity_typing").module
    predicted = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0]]).bool()
    mentions = [module.Mention([], [], [], types) for types in (["a"], ["b", "unseen"], ["c"])]
    got = module.scores(predicted, mentions, {"a": 0, "b": 1, "c": 2})
    macro_p, macro_r, micro_p, micro_r = 100 * (0.5 + 0) / 2, 100 * (1 + 0 + 0) / 3, 100 / 3, 100 / 4
    assert got == pytest.approx(
        {
            "macro_p": macro_p,
            "macro_r": macro_r,
            "micro_p": micro_p,
            "micro_r": micro_r,
            "macro_f1": 2 * macro_p * macro_r / (macro_p + macro_r),
            "micro_f1": 2 * micro_p * micro_r / (micro_p + micro_r),
        }
    )


def test_scores_of_random_predictions_by_brute_force(example: Make) -> None:
    module, names = example("entity_typing").module, {"a": 0, "b": 1, "c": 2, "d": 3}
    predicted, truth = torch.rand(2, 50, 4) < 0.4
    mentions = [module.Mention([], [], [], [t for t, k in names.items() if row[k]]) for row in truth]
    got = module.scores(predicted, mentions, names)
    precisions, recalls = [], []
    right = wrong = missed = 0
    for guess, gold in zip(predicted.tolist(), truth.tolist(), strict=True):
        hit = sum(g and t for g, t in zip(guess, gold, strict=True))
        precisions += [hit / sum(guess)] if any(guess) else []
        recalls += [hit / sum(gold)] if any(gold) else []
        right, wrong, missed = right + hit, wrong + sum(guess) - hit, missed + sum(gold) - hit
    assert got["macro_p"] == pytest.approx(100 * sum(precisions) / len(precisions))
    assert got["macro_r"] == pytest.approx(100 * sum(recalls) / len(recalls))
    assert got["micro_f1"] == pytest.approx(100 * 2 * right / (2 * right + wrong + missed))


def test_the_likeliest_type_is_predicted_even_below_the_threshold(example: Make) -> None:
    chosen = example("entity_typing").module.predict(torch.tensor([[-3.0, -2.0, -9.0], [1.0, 2.0, -1.0]]), 0.5)
    assert chosen.tolist() == [[False, True, False], [True, True, False]]


def test_neither_names_nor_sentences_are_in_two_splits(example: Make) -> None:
    splits = example("entity_typing").module.read(None)
    assert [len(splits[name]) > 30 for name in ("train", "dev", "test")] == [True] * 3
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for key in (lambda m: (" ".join(m.span), *m.types), lambda m: (" ".join(m.left), " ".join(m.right))):
            assert not {key(mention) for mention in splits[one]} & {key(mention) for mention in splits[other]}
    types = [{t for mention in splits[name] for t in mention.types} for name in ("train", "test")]
    assert types[0] == types[1]


@pytest.mark.parametrize("kind", ["lorentz", "euclidean"])
def test_padding_and_unknown_words_change_nothing(example: Make, kind: str) -> None:
    import argparse

    module = example("entity_typing").module
    model = module.Typer(kind, 9, 4, argparse.Namespace(dim=8, heads=2, dropout=0.5)).double().eval()
    span, context = torch.randint(1, 10, (3, 2, 5)), torch.randint(1, 10, (3, 4, 5))
    truth = model(span, context)
    padded = model(torch.nn.functional.pad(span, (0, 0, 0, 3)), torch.nn.functional.pad(context, (0, 0, 0, 2)))
    assert torch.allclose(padded, truth, rtol=1e-6)  # weights are float32
    assert torch.isfinite(model(span, torch.zeros_like(context))).all()


def test_types_start_as_likely_as_they_are_frequent(example: Make) -> None:
    script = example("entity_typing")
    script.run("--epochs", "1", "--seeds", "1", "--dim", "8", "--heads", "2", "--lr", "0", "--out", "o")
    mentions = script.module.read(None)["train"]
    count = Counter(name for mention in mentions for name in mention.types)
    truth = torch.tensor([count[name] / len(mentions) for name in sorted(count)])
    for kind in ("lorentz", "euclidean"):
        model = torch.load(script.folder / "o" / f"{kind}-0" / "checkpoint.pt", weights_only=True)["model"]
        assert torch.allclose(model["types.bias"].sigmoid(), truth, rtol=1e-5)


def test_the_set_written_from_facts_is_learned(example: Make) -> None:
    script = example("entity_typing")
    script.run("--epochs", "15", "--seeds", "1", "--out", "o")
    broad = 100 * 3 / 19  # the share of the most frequent broad type, of a guess that never looks
    assert script.result("o")["seeds"]["lorentz"][0]["macro_f1"] > 1.5 * broad


def test_a_bad_line_is_named(example: Make) -> None:
    script = example("entity_typing")
    good = {"mention_span": "It", "left_context_token": [], "right_context_token": ["is"], "y_str": ["thing"]}
    for split in ("train", "dev", "test"):
        (script.folder / f"{split}.json").write_text(json.dumps(good) + "\n")
    assert script.module.read(Path())["dev"][0].types == ["thing"]
    (script.folder / "dev.json").write_text(json.dumps(good) + "\n{}\n")
    with pytest.raises(RelsimError, match=r"^dev.json:2: expected a mention as JSON, see --help: "):
        script.module.read(Path())


@pytest.mark.data
def test_open_entity_has_its_known_size(example: Make, shared_data: Path) -> None:
    splits = example("entity_typing").module.read(shared_data / "open-entity")
    assert [*map(len, splits.values())] == [1998] * 3
    assert len({name for mention in splits["train"] for name in mention.types}) == 1541
