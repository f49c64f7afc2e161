"""Sentences with two marked entities and the relation between them: reading, and the official score."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from relsim.errors import RelsimError
from relsim.kb import KB

FARTHEST = 40  # words; what is farther from an entity is as far
PADDING, UNKNOWN = 0, 1


@dataclass(frozen=True)
class Sentence:
    """Lower-case words, the places of the two entities among them, and the relation with its direction."""

    words: tuple[str, ...]
    first: tuple[int, int]
    second: tuple[int, int]
    label: str


def parse(text: str, label: str, place: str) -> Sentence:
    """Read `a <e1>word</e1> and <e2>another</e2>`.

    Raises:
        RelsimError: the marks are not there; the message begins with `place`.
    """
    words: list[str] = []
    marks: dict[str, int] = {}
    for token in re.findall(r"</?e[12]>|\w+|[^\w\s]", text):
        if re.fullmatch(r"</?e[12]>", token):
            marks[token] = len(words)
        else:
            words.append(token.lower())
    try:
        first, second = ((marks[f"<e{k}>"], marks[f"</e{k}>"]) for k in (1, 2))
    except KeyError as error:
        raise RelsimError(f"{place}: no {error.args[0]} in the sentence: correct the line") from None
    return Sentence(tuple(words), first, second, label)


def read(path: Path) -> list[Sentence]:
    """Read a file in the form of SemEval-2010 Task 8: number TAB sentence, relation, comment, empty line.

    Raises:
        RelsimError: a line is at fault.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for k in range(0, len(lines) - 1, 4):
        _, tab, text = lines[k].partition("\t")
        if not tab:
            raise RelsimError(f"{path}:{k + 1}: expected a number, a TAB and a sentence: correct the line")
        found.append(parse(text, lines[k + 1].strip(), f"{path}:{k + 1}"))
    return found


def splits(folder: Path | None, small: Path, seed: int) -> dict[str, list[Sentence]]:
    """Return train, dev and test of a folder; without a dev file a tenth of train is held out.

    Without a folder, sentences are made of the facts in `small`.

    Raises:
        RelsimError: a file is missing or at fault.
    """
    if folder is None:
        return made_up(small)
    files = {path.name.lower(): path for path in folder.iterdir()}
    names = {"train": ("train.txt", "train_file.txt"), "dev": ("dev.txt",), "test": ("test.txt", "test_file_full.txt")}
    found = {
        split: read(next(files[name] for name in choices if name in files))
        for split, choices in names.items()
        if any(name in files for name in choices)
    }
    if not {"train", "test"} <= set(found):
        raise RelsimError(f"{folder}: expected train.txt or TRAIN_FILE.TXT, and test.txt or TEST_FILE_FULL.TXT")
    if "dev" not in found:
        order = np.random.default_rng(seed).permutation(len(found["train"]))
        held, rest = np.split(order, [len(order) // 10])
        found["dev"], found["train"] = ([found["train"][k] for k in part] for part in (held, rest))
    return found


def made_up(path: Path) -> dict[str, list[Sentence]]:
    """Return sentences made of extractions: each phrase between its entities, either way round, with some filling."""
    frames = ("{} .", "it is said that {} .", "as everybody knows , {} today .", "in those days {} again .")
    parts: dict[str, list[Sentence]] = {"train": [], "dev": [], "test": []}
    for k, row in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        h, phrase, t = row["h"]["id"], " ".join(row["r"]["name"]), row["t"]["id"]
        split = ("train", "train", "dev", "train", "test")[k % 5]
        for turned in (False, True):
            core = (
                f"the <e1> {t} </e1> that <e2> {h} </e2> {phrase}"
                if turned
                else f"<e1> {h} </e1> {phrase} <e2> {t} </e2>"
            )
            label = f"{row['r']['label']}({'e2,e1' if turned else 'e1,e2'})"
            parts[split] += [parse(frame.format(core), label, f"{path}, extraction {k + 1}") for frame in frames]
    return parts


def label_kb(sentences: Sequence[Sentence], labels: Sequence[str]) -> KB:
    """Return the KB of (last word of e1, label, last word of e2), whose relations are the labels in this order."""
    facts = [(s.words[s.first[1] - 1], s.label, s.words[s.second[1] - 1]) for s in sentences]
    kb = KB.from_names(facts, source="the training pairs")
    place = {name: labels.index(name) for name in kb.relations}
    number = np.array([place[name] for name in kb.relations])
    train = type(kb.train).from_columns(kb.train.head, number[kb.train.relation], kb.train.tail, kb.train.count)
    return KB(kb.entities, list(labels), {"train": train}, kb.source)


@dataclass(frozen=True)
class Batch:
    """Words (B, L), places relative to each entity (B, L), shifted to start at 1, and labels (B,); 0 is padding."""

    words: Tensor
    first: Tensor
    second: Tensor
    label: Tensor


class Vocabulary:
    """Numbers for the words that occur twice in training; 0 is padding and 1 any other word."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        count = Counter(word for sentence in sentences for word in sentence.words)
        self._number = {word: k + 2 for k, word in enumerate(sorted(w for w, n in count.items() if n > 1))}
        self._encoded: dict[Sentence, tuple[list[int], list[int], list[int]]] = {}

    def __len__(self) -> int:
        return len(self._number) + 2

    def batch(self, sentences: Sequence[Sentence], labels: Sequence[str]) -> Batch:
        """Return sentences as padded tensors."""
        length = max(len(s.words) for s in sentences)
        columns = [self._encoded.get(s) or self._encoded.setdefault(s, self._columns(s)) for s in sentences]
        padded = [[row + [PADDING] * (length - len(row)) for row in part] for part in zip(*columns, strict=True)]
        words, first, second = (torch.tensor(part) for part in padded)
        index = {name: k for k, name in enumerate(labels)}
        return Batch(words, first, second, torch.tensor([index[s.label] for s in sentences]))

    def _columns(self, s: Sentence) -> tuple[list[int], list[int], list[int]]:
        words = [self._number.get(word, UNKNOWN) for word in s.words]
        return words, *([_offset(k, *span) for k in range(len(words))] for span in (s.first, s.second))


def _offset(place: int, start: int, end: int) -> int:
    """The distance of a word from an entity's words, 0 inside, shifted to lie in [1, 2 FARTHEST + 1]."""
    offset = place - start if place < start else max(place - (end - 1), 0)
    return max(-FARTHEST, min(FARTHEST, offset)) + FARTHEST + 1


def macro_f1(right: Sequence[str], answer: Sequence[str], other: str) -> float:
    """Return the official score of SemEval-2010 Task 8, which KBP37 uses too: the mean F1 of relations but `other`.

    A relation is a label without its direction. An answer is right where the direction is too; one with the wrong
    direction counts against the relation's precision and recall.

    Source: Hendrickx et al., SemEval-2010 Task 8, 2010, (9+1)-way evaluation with directionality.
    """
    hits, stated, given = Counter[str](), Counter[str](), Counter[str]()
    for truth, guess in zip(right, answer, strict=True):
        hits[bare(truth)] += truth == guess
        stated[bare(truth)] += 1
        given[bare(guess)] += 1
    relations = sorted({*stated, *given} - {other})  # a set has another order, and so a sum, in each process
    return float(np.mean([2 * hits[name] / (stated[name] + given[name]) for name in relations]))


def bare(label: str) -> str:
    """Return a label without its direction."""
    return re.sub(r"\(e[12],e[12]\)$", "", label)
