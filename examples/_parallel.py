"""Parallel text: where it comes from, subwords, and batches of sentences of like length."""

from __future__ import annotations

import gzip
import io
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from _phrases import Pairs, written_from_rules
from torch import Tensor

from relsim.errors import RelsimError

PAD, START, END, UNKNOWN = range(4)


def read(path: Path | None) -> dict[str, Pairs]:
    """Return German-English pairs, train, valid and test: of a folder such as multi30k's, of a file, or of the rules.

    A folder has train, val and test_2016_flickr, each with .de and .en, one sentence a line. A file, plain or gz, has
    lines `English<TAB>German`, of which every 20th group of paraphrases is for validation and the one after it for
    the test.
    """
    if path is None:
        pairs = written_from_rules(5000)
        return {"train": pairs[:4400], "valid": pairs[4400:4700], "test": pairs[4700:]}
    if not path.exists():
        raise RelsimError(f"{path}: no such folder or file: give one with train.de and train.en, or lines of pairs")
    if path.is_file():
        return split_by_paraphrase(tabbed(path))
    names = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
    return {split: aligned(path / f"{name}.de", path / f"{name}.en") for split, name in names.items()}


def aligned(source: Path, target: Path) -> Pairs:
    """Return the pairs of two files of as many lines."""
    sides = [path.read_text(encoding="utf-8").splitlines() for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise RelsimError(f"{target}: {len(sides[1]):,} lines where {source} has {len(sides[0]):,}: align them")
    return list(zip(*sides, strict=True))


def tabbed(path: Path) -> Pairs:
    """Return the pairs of lines `English<TAB>German`."""
    pairs = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\n").split("\t")
            if len(fields) < 2:
                raise RelsimError(f"{path}:{number}: expected English<TAB>German, got {line.strip()[:40]!r}")
            pairs.append((fields[1], fields[0]))
    return pairs


def split_by_paraphrase(pairs: Pairs) -> dict[str, Pairs]:
    """Split so that no sentence of either language is in two parts: translations hold paraphrases together."""
    leader: dict[str, str] = {}

    def find(node: str) -> str:
        while leader.setdefault(node, node) != node:
            leader[node] = node = leader[leader[node]]
        return node

    for source, target in pairs:
        leader[find(f"de {source}")] = find(f"en {target}")
    groups: dict[str, Pairs] = defaultdict(list)
    for pair in pairs:
        groups[find(f"de {pair[0]}")].append(pair)
    names = sorted(groups)
    random.Random(0).shuffle(names)
    parts: dict[str, Pairs] = {"train": [], "valid": [], "test": []}
    for number, name in enumerate(names):
        parts[{0: "valid", 1: "test"}.get(number % 20, "train")] += groups[name]
    return parts


class Subwords:
    """One vocabulary of subwords for both languages, learned by sentencepiece (byte-pair encoding)."""

    def __init__(self, model: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self.model = model
        self._processor = SentencePieceProcessor(model_proto=model)

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return self._processor.get_piece_size()

    @classmethod
    def learn(cls, sentences: Sequence[str], size: int) -> Subwords:
        """Learn a vocabulary of at most so many subwords."""
        try:
            from sentencepiece import SentencePieceTrainer
        except ImportError:
            raise RelsimError("needs sentencepiece: run `pip install 'lorentz-relsim[examples]'`") from None
        written = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=written,
            vocab_size=size,
            model_type="bpe",
            character_coverage=1.0,
            normalization_rule_name="identity",
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
            pad_id=PAD,
            bos_id=START,
            eos_id=END,
            unk_id=UNKNOWN,
        )
        return cls(written.getvalue())

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the subwords of each sentence."""
        return self._processor.encode(list(sentences))

    def spans(self, sentence: str) -> list[tuple[int, int, int]]:
        """Return each subword with the letters that it covers, from and to."""
        letters = [place for place, letter in enumerate(sentence) if letter != " "]
        found, start = [], 0
        for token, piece in zip(*(self._processor.encode(sentence, out_type=kind) for kind in (int, str)), strict=True):
            covered = letters[start : start + len(piece.replace("▁", ""))]  # ▁ stands for a space
            found.append((token, covered[0], covered[-1] + 1) if covered else (token, 0, 0))
            start += len(covered)
        return found

    def decode(self, tokens: Tensor) -> list[str]:
        """Return the sentences of rows (N, T) that are filled with `END`."""
        rows = [[token for token in row if token > UNKNOWN] for row in tokens.tolist()]
        return self._processor.decode(rows)


Numbered = list[tuple[list[int], list[int]]]
"""Pairs as subwords."""


def batches(pairs: Numbered, tokens: int, *, shuffled: bool, multiple: int = 1) -> Iterator[list[int]]:
    """Yield the indices of sentences of like length that fill at most so many tokens when padded to a multiple.

    Lengths are compared with some noise when shuffled, so that the batches of two epochs differ.
    """
    noise = torch.rand(len(pairs)).tolist() if shuffled else [0.0] * len(pairs)
    # The longer side counts, with START or END.
    sizes = [1 + max(map(len, pair)) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda k: (sizes[k] + 2 * noise[k], noise[k]))
    parts: list[list[int]] = [[]]
    longest = 0
    for k in order:
        size = rounded(sizes[k], multiple)
        longest = max(longest, size)
        if parts[-1] and (len(parts[-1]) + 1) * longest > tokens:
            parts.append([])
            longest = size
        parts[-1].append(k)
    turn = torch.randperm(len(parts)).tolist() if shuffled else range(len(parts))
    yield from (parts[k] for k in turn)


def padded(rows: Sequence[Sequence[int]], device: str, multiple: int = 1) -> Tensor:
    """Return rows of numbers as one tensor (N, longest, rounded up to a multiple), filled with `PAD`."""
    longest = rounded(max(map(len, rows)), multiple)
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], device=device)


def rounded(size: int, multiple: int) -> int:
    """Return the least multiple that is not less than a size."""
    return -(-size // multiple) * multiple
