"""`examples/tree_probe.py`: its trees and measures against networkx and scipy, its probes against other formulas."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.stats
import torch

from relsim.errors import RelsimError

pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")
pytest.importorskip("conllu")

Make = Callable[[str], Any]
CONLLU = """# text = Don't the dogs of Rome bark?
1-2	Don't	_	_	_	_	_	_	_	_
1	Do	do	AUX	VBP	_	7	aux	_	_
2	n't	not	PART	RB	_	7	advmod	_	_
3	the	the	DET	DT	_	4	det	_	_
4	dogs	dog	NOUN	NNS	_	7	nsubj	_	_
5	of	of	ADP	IN	_	6	case	_	_
6	Rome	Rome	PROPN	NNP	_	4	nmod	_	_
7	bark	bark	VERB	VB	_	0	root	_	SpaceAfter=No
7.1	loudly	loudly	ADV	RB	_	_	_	_	_
8	?	?	PUNCT	.	_	7	punct	_	_

"""


def conllu(tree: tuple[list[str], list[int]]) -> str:
    """Return a tree as lines of CoNLL-U."""
    rows = [
        f"{place}\t{word}\t_\t{'PUNCT' if word == '.' else 'X'}\t_\t_\t{head}\t_\t_\t_\n"
        for place, (word, head) in enumerate(zip(*tree, strict=True), 1)
    ]
    return "".join(rows) + "\n"


def trees_of(example: Make) -> Any:
    example("tree_probe")
    import _trees

    return _trees


@pytest.fixture
def sentence(example: Make, tmp_path: Path) -> Any:
    (tmp_path / "a.conllu").write_text(CONLLU)
    (tree,) = trees_of(example).conllu(tmp_path / "a.conllu")
    return tree


def test_a_tree_is_read_with_the_letters_of_each_word_and_without_what_is_no_word(sentence: Any) -> None:
    assert sentence.words == ["Do", "n't", "the", "dogs", "of", "Rome", "bark", "?"]
    assert sentence.heads == [7, 7, 4, 7, 6, 4, 0, 7]
    assert sentence.counted == [True] * 7 + [False]
    assert [sentence.text[begin:end] for begin, end in sentence.places] == sentence.words
    assert sentence.depths.tolist() == [1, 1, 2, 1, 3, 2, 0, 1]


def test_distances_are_lengths_of_paths(sentence: Any) -> None:
    lengths = dict(nx.all_pairs_shortest_path_length(nx.Graph(sentence.edges())))
    assert sentence.distances.tolist() == [[lengths[a][b] for b in range(8)] for a in range(8)]


def test_every_sentence_by_rules_has_a_tree(example: Make) -> None:
    for split in trees_of(example).read(None).values():
        for tree in split:
            graph = nx.Graph(tree.edges())
            assert nx.is_tree(graph)
            assert len(graph) == len(tree.words)
            assert tree.heads.count(0) == 1


def test_the_tree_of_a_sentence_by_rules_is_that_of_its_grammar(example: Make) -> None:
    trees_of(example)
    from _phrases import tree_of

    words, heads = tree_of("The man sold two hundred and six roses on Friday at half past nine.")
    governors = {word: words[head - 1] if head else None for word, head in zip(words, heads, strict=True)}
    assert governors == {
        "The": "man",
        "man": "sold",
        "sold": None,
        "two": "hundred",
        "hundred": "roses",
        "and": "six",
        "six": "hundred",
        "roses": "sold",
        "on": "Friday",
        "Friday": "sold",
        "at": "half",
        "half": "sold",
        "past": "nine",
        "nine": "half",
        ".": "sold",
    }


def test_the_right_distances_have_full_marks(example: Make, sentence: Any) -> None:
    got = trees_of(example).measures([sentence], [sentence.distances], [sentence.depths])
    assert got == pytest.approx({"uuas": 100, "root": 100, "distance": 100, "depth": 100})


def test_the_chain_counted_by_hand(example: Make, sentence: Any) -> None:
    """Of the six edges without the full stop, the-dogs and of-Rome join neighbours; the first word is not the root."""
    got = example("tree_probe").module.chain([sentence])
    assert got["uuas"] == pytest.approx(100 * 2 / 6)
    assert got["root"] == 0


def test_the_spanning_tree_is_that_of_networkx(example: Make) -> None:
    matrix = np.random.default_rng(0).random((12, 12))
    matrix = matrix + matrix.T
    graph = nx.Graph()
    graph.add_weighted_edges_from((a, b, matrix[a, b]) for a in range(12) for b in range(a))
    truth = {frozenset(edge) for edge in nx.minimum_spanning_edges(graph, data=False)}
    assert {frozenset(edge) for edge in trees_of(example).spanning(matrix)} == truth


def test_rank_correlations_are_those_of_scipy(example: Make) -> None:
    draw = np.random.default_rng(0)
    found, truth = draw.integers(0, 5, (2, 9, 7)).astype(float)
    wanted = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(found, truth, strict=True)]
    assert trees_of(example).spearman(found, truth) == pytest.approx(np.array(wanted))
    assert np.isnan(trees_of(example).spearman(np.ones((1, 4)), found[:1, :4])).all()


@pytest.mark.parametrize("space", ["hyperbolic", "euclidean"])
def test_probes_say_squared_distances_and_depths(example: Make, space: str) -> None:
    """The distance of exp(u) and exp(v) is acosh(cosh|u| cosh|v| - sinh|u| sinh|v| cos(u, v))."""
    probe, words = example("tree_probe").module.Probe(space, 6, 3).double(), 3 * torch.randn(2, 5, 6).double()
    distances, depths = probe(words)
    u, v = (words @ probe.distance.mT)[:, :, None], (words @ probe.distance.mT)[:, None]
    a, b, product = u.norm(dim=-1), v.norm(dim=-1), (u * v).sum(-1)
    if space == "euclidean":
        truth = a**2 + b**2 - 2 * product
    else:
        truth = (a.cosh() * b.cosh() - a.sinh() * b.sinh() * product / (a * b)).clamp_min(1).acosh() ** 2
    assert torch.allclose(distances, truth, atol=1e-9)
    assert torch.allclose(depths, (words @ probe.depth.mT).norm(dim=-1) ** 2)


@pytest.mark.parametrize("kind", ["lorentz", "euclidean"])
def test_the_vector_of_a_word_is_the_mean_of_its_subwords_whatever_else_is_in_the_batch(
    example: Make, kind: str, sentence: Any
) -> None:
    module, translation = example("tree_probe").module, example("translation").module
    from _parallel import Subwords

    trees = [sentence, *trees_of(example).read(None)["test"][:5]]
    subwords = Subwords.learn([tree.text for tree in trees] * 5, 60)
    options = translation.arguments().parse_args(["--dim", "8", "--heads", "2", "--layers", "1"])
    model = translation.Translator(kind, len(subwords), options).eval()
    kept, vectors = module.word_vectors(model, subwords, trees, "encoder", "cpu")
    assert kept == trees
    tokens = [*subwords.encode([sentence.text])[0], 2]
    states = model.encode(torch.tensor([tokens]))[0][0]
    pieces = [k for k, (_, begin, end) in enumerate(subwords.spans(sentence.text)) if begin < 14 and end > 10]
    assert len(pieces) > 1
    assert sentence.text[10:14] == "dogs"
    assert torch.allclose(vectors[0][3], states[pieces].mean(0), atol=1e-5)


def test_a_probe_finds_trees_that_are_there(example: Make, tmp_path: Path) -> None:
    """Each edge of the tree is a direction of its own: squared Euclidean distances are then those of the tree."""
    module, draw = example("tree_probe").module, np.random.default_rng(0)
    trees, vectors = [], []
    for _ in range(150):
        heads = [0] + [int(draw.integers(1, k + 1)) for k in range(1, 10)]
        words = [f"w{k}" for k in range(10)]
        trees.append(trees_of(example).located(" ".join(words), words, heads))
        rows = torch.zeros(10, 10)
        for k in range(1, 10):
            rows[k] = rows[heads[k] - 1]
            rows[k, k] = 1
        vectors.append(rows)
    data = {
        split: module.Sentences(trees[part], vectors[part], "cpu")
        for split, part in {"train": slice(90), "dev": slice(90, 120), "test": slice(120, 150)}.items()
    }
    import argparse

    options = argparse.Namespace(
        dim=10, lr=0.05, epochs=25, batch=8, out=tmp_path, resume=False, progress=False, device="cpu"
    )
    # What is equal in the tree is not quite equal in a prediction, which bounds the correlations.
    nearly = [[matrix + 1e-6 * draw.random(matrix.shape) for matrix in (t.distances, t.depths)] for t in trees[120:]]
    best = trees_of(example).measures(trees[120:], *zip(*nearly, strict=True))
    assert best["uuas"] == 100
    for space in module.SPACES:
        figures = module.train(space, space, data, 0, options)[1]
        assert figures["uuas"] > 95
        assert figures["root"] > 95
        assert figures["depth"] == pytest.approx(best["depth"], abs=0.5)
        assert figures["distance"] == pytest.approx(best["distance"], abs=0.5 if space == "euclidean" else 2)


def test_probes_of_a_translator_killed_at_any_moment_go_on_along_the_same_curve(example: Make) -> None:
    translation = example("translation")
    import _phrases

    lines = [f"{english}\t{german}\n" for german, english in _phrases.written_from_rules(600)]
    (translation.folder / "small.tsv").write_text("".join(lines))
    small = ["--epochs", "1", "--dim", "8", "--layers", "1", "--heads", "2", "--vocabulary", "200", "--beam", "1"]
    translation.run("--data", "small.tsv", "--reverse", "--out", "en", *small)
    for number, split in enumerate(("train", "dev", "test")):
        (translation.folder / f"rules-{split}.conllu").write_text(
            "".join(conllu(_phrases.tree_of(line.split("\t")[0])) for line in lines[40 * number : 40 * number + 40])
        )
    script, settings = example("tree_probe"), ["--data", ".", "--encoders", "en", "--epochs", "3", "--dim", "4"]
    said = script.run(*settings, "--out", "whole")
    process = script.start(*settings, "--out", "broken", "--resume")
    log, deadline = script.folder / "broken" / "lorentz-table-hyperbolic-0" / "log.jsonl", time.monotonic() + 200
    while not log.exists() or not log.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    script.run(*settings, "--out", "broken", "--resume")
    assert script.curves("broken") == script.curves("whole")
    assert len(script.curves("whole")) == 8
    result = script.result("whole")
    assert {figures[0]["parameters"] for figures in result["seeds"].values()} == {2 * 4 * 8}
    assert f"linear chain: UUAS {result['linear_chain']['uuas']:.1f}" in said
    assert (script.folder / "whole" / "sentence.png").exists()


def test_a_folder_without_trees_is_named(example: Make) -> None:
    with pytest.raises(
        RelsimError, match=r"^nowhere: no file \*-train.conllu or .conllu.gz: give the folder of a tree"
    ):
        trees_of(example).read(Path("nowhere"))


def test_lines_that_are_no_conllu_are_named(example: Make, tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(CONLLU + "1\tone\n\n")
    with pytest.raises(RelsimError, match=r"a.conllu: sentence 2 is not as CoNLL-U has it: "):
        list(trees_of(example).conllu(tmp_path / "a.conllu"))


@pytest.mark.data
def test_every_word_of_ewt_has_letters_of_its_text(example: Make, shared_data: Path) -> None:
    trees = trees_of(example).read(shared_data / "ud-english-ewt")["test"]
    assert len(trees) == 1926
    assert all(tree.text[a:b] == word for tree in trees for word, (a, b) in zip(tree.words, tree.places, strict=True))
