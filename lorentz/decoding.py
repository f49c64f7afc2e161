"""Beam search: the likeliest sequences of a model that says what comes next."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def beam_search(
    step: Callable[[Tensor], Tensor],
    batch: int,
    *,
    start: int,
    end: int,
    length: int,
    width: int = 4,
    alpha: float = 1.0,
    reorder: Callable[[Tensor], None] | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Return the best sequence that a beam search finds for each element of a batch, and its score.

    Every step extends `width` prefixes of each element by one token and keeps the likeliest. A prefix whose end is
    among the `width` best continuations is finished; an element is done when `width` are. Finished sequences
    y are compared by

    .. math:: \log p(y) / |y|^\alpha,

    where the length counts the end. An element without a finished sequence after `length` tokens gets its likeliest
    prefix. With `width=1` this is greedy decoding.

    Args:
        step: from prefixes (batch * width, t), `start` first and those of one element next to one another, to
            log-probabilities of the next token (batch * width, V). With a cache it needs the last column only.
        batch: number of elements.
        start: token that every sequence starts with; it is not returned.
        end: token that ends a sequence.
        length: largest number of tokens, the end included.
        width: number of prefixes kept.
        alpha: exponent of the length; 0 compares log-probabilities.
        reorder: called before every step but the first with the rows (batch * width) of the last step that the
            prefixes go on from; `DecoderLayerCache.reorder` is made for it.
        device: of the prefixes.

    Returns:
        Tokens (batch, T) with T at most `length`, filled with `end` from the end on, and scores (batch).

    Raises:
        ValueError: `batch`, `width` or `length` is not positive.

    Source: Wu et al., Google's Neural Machine Translation System, arXiv:1609.08144, section 7, without coverage.
    """
    if min(batch, width, length) < 1:
        raise ValueError(f"expected positive batch, width and length, got {batch}, {width} and {length}")
    first = torch.arange(batch, device=device).unsqueeze(1) * width  # the row of the first prefix of each element
    prefixes = torch.full((batch * width, 1), start, device=device)
    scores = torch.full((batch, width), -math.inf, device=device)
    scores[:, 0] = 0.0  # all prefixes are the same at first
    best = _Best(batch, length, width, end, device)
    for number in range(1, length + 1):
        following = step(prefixes)
        total = (scores.view(-1, 1) + following).view(batch, -1)  # (batch, width * V)
        found, index = total.topk(min(2 * width, total.shape[1]))  # at most `width` of them end
        rows, tokens = first + index // following.shape[-1], index % following.shape[-1]
        ends = tokens == end
        value = found.masked_fill(~ends, -math.inf)[:, :width] / number**alpha
        best.take(value, prefixes[rows[:, :width], 1:])
        going = ends.long().argsort(dim=1, stable=True)[:, :width]  # the likeliest that do not end
        scores = found.masked_fill(ends, -math.inf).gather(1, going)
        rows = rows.gather(1, going).flatten()
        prefixes = torch.cat([prefixes[rows], tokens.gather(1, going).view(-1, 1)], dim=1)
        if best.done():
            break
        if reorder is not None and number < length:
            reorder(rows)
    best.take_unfinished(scores[:, 0] / number**alpha, prefixes[first.squeeze(1), 1:])
    return best.tokens[:, :number], best.score


class _Best:
    """The best finished sequence of each element, and how many have been found."""

    def __init__(self, batch: int, length: int, width: int, end: int, device: torch.device | str | None) -> None:
        self.tokens = torch.full((batch, length), end, device=device)
        self.score = torch.full((batch,), -math.inf, device=device)
        self.found = torch.zeros(batch, dtype=torch.long, device=device)
        self.width = width

    def done(self) -> bool:
        return bool((self.found >= self.width).all())

    def take(self, scores: Tensor, sequences: Tensor) -> None:
        """Take those of scores (batch, k) and sequences (batch, k, t) that are better, for elements not yet done."""
        open_ = (self.found < self.width).unsqueeze(1)
        self.found += (open_ & (scores > -math.inf)).sum(1)
        score, place = scores.masked_fill(~open_, -math.inf).max(1)
        better = (score > self.score).nonzero().squeeze(1)
        self.score[better] = score[better]
        self.tokens[better, : sequences.shape[2]] = sequences[better, place[better]]

    def take_unfinished(self, scores: Tensor, sequences: Tensor) -> None:
        """Take the sequences (batch, t) of the elements that have none."""
        missing = (self.found == 0).nonzero().squeeze(1)
        self.score[missing] = scores[missing]
        self.tokens[missing, : sequences.shape[1]] = sequences[missing]
