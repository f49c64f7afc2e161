"""`examples/translation.py`: the model against its definition, its beam search, its measure, and what it reads."""

from __future__ import annotations

import argparse
import gzip
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from relsim.errors import RelsimError
from tests.examples.translating import END, PAD, SMALL, START, WORDS, model_of, sentences

pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")

Make = Callable[[str], Any]
kinds = pytest.mark.parametrize("kind", ["lorentz", "layers", "table", "euclidean"])


@kinds
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_the_logits_with_smoothed_labels(
    example: Make, kind: str, smoothing: float
) -> None:
    model, source, ends = model_of(example, kind), sentences(5, 3), sentences(4, 6)
    target = torch.cat([torch.full((2, 1), START), ends], dim=1)
    logits = model.head(model.decode(target[:, :-1], *model.encode(source)))
    truth = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD, label_smoothing=smoothing)
    loss = model.loss(source, target, smoothing)
    assert loss.item() == pytest.approx(truth.item(), rel=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for ours, theirs in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(truth, parameters), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["lorentz", "euclidean"])
def test_encoder_and_decoder_compile_whole_and_once_for_every_length(example: Make, kind: str) -> None:
    model, compiled = model_of(example, kind, layers=1), []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    states = torch.compile(model.states, dynamic=True, fullgraph=True, backend=backend)
    for source, target in ((sentences(5, 3), sentences(4, 6)), (sentences(7, 2, 4), sentences(3, 9, 5))):
        assert torch.allclose(states(source, target), model.states(source, target), atol=1e-5)
    assert len(compiled) == 1


@kinds
def test_no_subword_sees_the_future_and_none_sees_padding(example: Make, kind: str) -> None:
    model = model_of(example, kind)
    source, target, other = sentences(5, 3), *torch.randint(4, WORDS, (2, 2, 7))
    states = model.decode(target, *model.encode(source))
    mixed = model.decode(torch.cat([target[:, :4], other[:, 4:]], dim=1), *model.encode(source))
    assert torch.allclose(states[:, :4], mixed[:, :4], atol=1e-5)
    assert not torch.allclose(states[:, 4:], mixed[:, 4:], atol=1e-2)
    longer = F.pad(source, (0, 3), value=PAD)
    assert torch.allclose(states, model.decode(target, *model.encode(longer)), atol=1e-5)


@kinds
@pytest.mark.parametrize("residual", ["sum", "centroid"])
def test_a_beam_of_one_is_greedy_and_padding_in_the_batch_changes_no_translation(
    example: Make, kind: str, residual: str
) -> None:
    model = model_of(example, kind, residual=residual)
    source = sentences(9, 3, 6, 1)
    found = model.translate(source, 1)
    for row, tokens in zip(source, found, strict=True):
        alone, prefix = row[row != PAD][None], [START]
        while len(prefix) <= source.shape[1] + 20 and (len(prefix) == 1 or prefix[-1] != END):
            states = model.decode(torch.tensor([prefix]), *model.encode(alone))
            prefix.append(int(model.head(states[:, -1]).argmax()))
        assert tokens.tolist() == prefix[1:] + [END] * (len(tokens) - len(prefix) + 1)


def test_a_beam_search_with_the_cache_finds_what_one_without_it_finds(example: Make) -> None:
    model, source = model_of(example, "lorentz"), sentences(7, 2, 5, 5, 1)
    assert torch.equal(model.translate(source, 4), model.translate(source, 4, cached=False))


def test_the_twins_differ_by_the_ratios_of_the_centroid_residual_alone(example: Make) -> None:
    module = example("translation").module
    counts = {
        residual: module.parameters(model_of(example, "lorentz", residual=residual)) for residual in ("sum", "centroid")
    }
    for kind in ("layers", "table", "euclidean"):
        assert counts["sum"] == module.parameters(model_of(example, kind))
    assert counts["centroid"] == counts["sum"] + 2 * (2 + 3)


@kinds
@pytest.mark.parametrize("table", ["chart", "riemannian"])
def test_every_parameter_has_one_rate_the_table_and_the_weights_of_times_their_own(
    example: Make, kind: str, table: str
) -> None:
    module, model = example("translation").module, model_of(example, kind)
    chosen = argparse.Namespace(
        lr=0.01, weight_decay=0.1, table=table, table_rate=3.0, time_rate=2.0, curvature=0.5, dim=8
    )
    groups = module.groups_of(model, chosen)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    moved_as_points = {id(p) for group in groups if "manifold" in group for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        point = kind in ("lorentz", "table") and name == "word.weight"
        share = 3 if point else 2 * 0.25 if name.endswith("time_weight") else 1
        assert rates[id(parameter)] == pytest.approx(0.01 * share)
        assert (id(parameter) in moved_as_points) == (point and table == "riemannian")


def test_attention_starts_as_large_as_the_twins_with_a_small_curvature_or_values_near_the_origin(example: Make) -> None:
    """Means over 16 positions of the norm of what attention returns."""
    module = example("translation").module
    x = F.layer_norm(torch.randn(64, 16, 64), (64,))
    sizes = []
    cases = [("euclidean", "torch", 1), ("lorentz", "torch", 64), ("lorentz", "near", 64), ("lorentz", "torch", 1)]
    for kind, values, curvature in cases:
        start = {"dim": 64, "heads": 4, "radius": "any", "values": values, "curvature": curvature}
        options = argparse.Namespace(**{**vars(module.arguments().parse_args(SMALL)), **start})
        attention = module.Translator(kind, WORDS, options).encoder.layers[0].self_attn
        sizes.append(attention(x, x, x, need_weights=False)[0].norm(dim=-1).mean().item())
    assert sizes[1] < 0.5 * sizes[0]
    assert all(0.8 * sizes[0] < size < 1.2 * sizes[0] for size in sizes[2:]), sizes


def test_bleu_is_that_of_its_definition(example: Make) -> None:
    found = ["the cat sat on the mat today", "a dog runs"]
    truth = ["the cat sat on a mat", "a dog runs very fast"]
    logs = 0.0
    for n in range(1, 5):
        hits = total = 0
        for ours, theirs in zip(found, truth, strict=True):
            grams = [
                Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))
                for words in (ours.split(), theirs.split())
            ]
            hits, total = hits + sum((grams[0] & grams[1]).values()), total + sum(grams[0].values())
        logs += math.log(hits / total) / 4
    lengths = [sum(len(text.split()) for text in texts) for texts in (found, truth)]
    value = 100 * math.exp(logs + min(0, 1 - lengths[1] / lengths[0]))
    score, signature = example("translation").module.bleu(found, [("", text) for text in truth])
    assert score == pytest.approx(value, rel=1e-6)
    assert "tok:13a" in signature


def test_numbers_in_both_languages(example: Make) -> None:
    example("translation")
    import _phrases

    words = {
        1: ("eins", "one"),
        17: ("siebzehn", "seventeen"),
        30: ("dreißig", "thirty"),
        64: ("vierundsechzig", "sixty-four"),
        101: ("einhunderteins", "one hundred and one"),
        700: ("siebenhundert", "seven hundred"),
        921: ("neunhunderteinundzwanzig", "nine hundred and twenty-one"),
    }
    assert {n: (_phrases.german(n), _phrases.english(n)) for n in words} == words
    for language in (_phrases.german, _phrases.english):
        assert len({language(n) for n in range(1000)}) == 1000


def test_sentences_by_rules_are_in_one_split_each(example: Make) -> None:
    splits = example("translation").module.read(None)
    sources = [source for pairs in splits.values() for source, _ in pairs]
    assert len(set(sources)) == len(sources) == 5000


def test_a_file_is_split_so_that_no_sentence_is_in_two_parts(example: Make) -> None:
    script = example("translation")
    lines = [f"english {k % 60}\tdeutsch {k % 90}\tCC-BY" for k in range(0, 400, 7)]
    with gzip.open(script.folder / "pairs.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    splits = script.module.read(Path("pairs.tsv.gz"))
    assert sum(map(len, splits.values())) == len(lines)
    for side in (0, 1):
        parts = [{pair[side] for pair in pairs} for pairs in splits.values()]
        assert all(not one & other for k, one in enumerate(parts) for other in parts[:k])


def test_every_pair_is_in_one_batch_and_batches_hold_what_they_may(example: Make) -> None:
    module = example("translation").module
    pairs = [([7] * int(a), [7] * int(b)) for a, b in torch.randint(1, 30, (200, 2))]
    for shuffled in (False, True):
        parts = list(module.batches(pairs, 128, shuffled=shuffled))
        assert sorted(k for part in parts for k in part) == list(range(200))
        for part in parts:
            assert len(part) * max(1 + max(map(len, pairs[k])) for k in part) <= 128


def test_subwords_give_the_sentence_back(example: Make) -> None:
    import _parallel

    pairs = example("translation").module.read(None)["valid"]
    texts = [side for pair in pairs for side in pair]
    subwords = _parallel.Subwords.learn(texts, 300)
    rows = subwords.encode(texts)
    assert subwords.decode(_parallel.padded([[*row, END, END] for row in rows], "cpu")) == texts
    assert max(max(row) for row in rows) < len(subwords) <= 300


def test_a_bad_line_is_named(example: Make) -> None:
    script = example("translation")
    (script.folder / "bad.tsv").write_text("Hi.\tHallo!\nHi.\n")
    with pytest.raises(RelsimError, match=r"^bad.tsv:2: expected English<TAB>German, got 'Hi.'$"):
        script.module.read(Path("bad.tsv"))
    with pytest.raises(RelsimError, match=r"^nothing.tsv: no such folder or file: give one with train.de and train.en"):
        script.module.read(Path("nothing.tsv"))
    for name, lines in {"train.de": "a\nb\n", "train.en": "a\n"}.items():
        (script.folder / name).write_text(lines)
    with pytest.raises(RelsimError, match=r"^train.en: 1 lines where train.de has 2: align them$"):
        script.module.read(Path())


@pytest.mark.data
def test_multi30k_has_its_known_size(example: Make, shared_data: Path) -> None:
    splits = example("translation").module.read(shared_data / "multi30k")
    assert {name: len(pairs) for name, pairs in splits.items()} == {"train": 29_000, "valid": 1014, "test": 1000}
