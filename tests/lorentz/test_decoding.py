"""`lorentz.decoding`: beam search against all sequences, greedy decoding, and itself with a cache."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from lorentz.decoding import beam_search

END, START = 0, 9


def following(prefix: tuple[int, ...], element: int, words: int) -> list[float]:
    """Return log-probabilities that depend on the whole prefix and on the element."""
    draw = random.Random(f"{element} {prefix}")
    weights = [draw.random() ** 3 for _ in range(words)]
    return [math.log(weight / sum(weights)) for weight in weights]


class Model:
    """A language model of `words` tokens for each element, as `beam_search` calls it."""

    def __init__(self, words: int, width: int, elements: list[int]) -> None:
        self.words, self.width, self.elements = words, width, elements

    def __call__(self, prefixes: Tensor) -> Tensor:
        rows = prefixes[:, 1:].tolist()
        assert (prefixes[:, 0] == START).all()
        return torch.tensor(
            [following(tuple(p), self.elements[k // self.width], self.words) for k, p in enumerate(rows)]
        )


def search(words: int, length: int, width: int, elements: list[int], alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    model = Model(words, width, elements)
    return beam_search(model, len(elements), start=START, end=END, length=length, width=width, alpha=alpha)


def log_probability(sequence: tuple[int, ...], element: int, words: int) -> float:
    return sum(following(sequence[:k], element, words)[token] for k, token in enumerate(sequence))


def cut(row: Tensor) -> tuple[int, ...]:
    """Return a sequence up to its end."""
    tokens = row.tolist()
    return tuple(tokens[: tokens.index(END) + 1] if END in tokens else tokens)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_beam_that_keeps_all_prefixes_finds_the_best_of_all_sequences(alpha: float) -> None:
    words, length, elements = 3, 4, [0, 1, 2, 3, 4]
    tokens, scores = search(words, length, 27, elements, alpha)
    for element, row, score in zip(elements, tokens, scores, strict=True):
        finished = [
            (*prefix, END) for size in range(length) for prefix in itertools.product(range(1, words), repeat=size)
        ]
        values = {y: log_probability(y, element, words) / len(y) ** alpha for y in finished}
        best = max(values, key=values.__getitem__)
        assert cut(row) == best
        assert score.item() == pytest.approx(values[best], rel=1e-5)


def test_a_beam_of_one_is_greedy_decoding() -> None:
    words, length, elements = 6, 12, list(range(20))
    tokens, scores = search(words, length, 1, elements)
    for element, row, score in zip(elements, tokens, scores, strict=True):
        greedy: tuple[int, ...] = ()
        while len(greedy) < length and (not greedy or greedy[-1] != END):
            values = following(greedy, element, words)
            greedy += (values.index(max(values)),)
        assert cut(row) == greedy
        assert score.item() == pytest.approx(log_probability(greedy, element, words) / len(greedy), rel=1e-5)


def test_the_score_is_that_of_the_sequence_and_no_element_depends_on_another() -> None:
    words, length, elements = 5, 9, list(range(12))
    tokens, scores = search(words, length, 3, elements)
    for element, row, score in zip(elements, tokens, scores, strict=True):
        sequence = cut(row)
        assert (row[len(sequence) :] == END).all()
        assert score.item() == pytest.approx(log_probability(sequence, element, words) / len(sequence), rel=1e-5)
        alone = search(words, length, 3, [element])
        assert cut(alone[0][0]) == sequence


def test_rows_to_reorder_are_those_that_the_prefixes_go_on_from() -> None:
    """A cache that holds the prefixes, moved by `reorder` and extended by the last token, always holds the prefixes."""
    words, width, elements = 5, 4, [3, 1, 4]
    model, held = Model(words, width, elements), torch.empty(len(elements) * width, 0, dtype=torch.long)

    def step(prefixes: Tensor) -> Tensor:
        nonlocal held
        held = torch.cat([held, prefixes[:, -1:]], dim=1)
        assert torch.equal(held, prefixes)
        return model(prefixes)

    def reorder(rows: Tensor) -> None:
        nonlocal held
        held = held[rows]

    tokens, _ = beam_search(step, 3, start=START, end=END, length=8, width=width, reorder=reorder)
    assert torch.equal(tokens, search(words, 8, width, elements)[0])


def test_without_an_end_the_likeliest_prefix_is_returned() -> None:
    def step(prefixes: Tensor) -> Tensor:
        return torch.tensor([-math.inf, math.log(0.25), math.log(0.75)]).expand(len(prefixes), -1)

    tokens, scores = beam_search(step, 2, start=START, end=END, length=5, width=2)
    assert tokens.tolist() == [[2] * 5] * 2
    assert scores.tolist() == pytest.approx([math.log(0.75)] * 2)


def test_sizes_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="expected positive batch, width and length, got 2, 0 and 5"):
        beam_search(lambda p: p, 2, start=START, end=END, length=5, width=0)
