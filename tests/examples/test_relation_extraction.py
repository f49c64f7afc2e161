"""`examples/relation_extraction.py`: reading, the official score, models that do not see padding, resuming."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from relsim.errors import RelsimError
from tests.examples.test_relation_experiments import EXAMPLES, Run, load, run

__all__ = ["run"]  # the fixture


@pytest.fixture
def extraction(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield load("_extraction")
    sys.modules.pop("_extraction")


def test_marks_and_words_are_read(extraction: ModuleType) -> None:
    s = extraction.parse('"The <e1>Child</e1>\'s toy was in the <e2>old crib</e2>."', "A(e1,e2)", "file:1")
    assert s.words == ('"', "the", "child", "'", "s", "toy", "was", "in", "the", "old", "crib", ".", '"')
    assert s.words[slice(*s.first)] == ("child",)
    assert s.words[slice(*s.second)] == ("old", "crib")
    with pytest.raises(RelsimError, match="file:7: no </e2> in the sentence"):
        extraction.parse("a <e1>b</e1> <e2>c", "A", "file:7")


def test_files_are_read_and_their_faults_named(extraction: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text('1\t"<e1>a</e1> of <e2>b</e2>"\nPart(e1,e2)\nComment:\n\n2\t<e1>c</e1> <e2>d</e2>\nOther\n\n\n')
    assert [s.label for s in extraction.read(path)] == ["Part(e1,e2)", "Other"]
    path.write_text("no number\nOther\n\n\n")
    with pytest.raises(RelsimError, match=r"train.txt:1: expected a number, a TAB"):
        extraction.read(path)
    with pytest.raises(RelsimError, match=r"expected train\.txt or TRAIN_FILE\.TXT"):
        extraction.splits(tmp_path / "..", path, 0)


def test_the_official_score_by_hand(extraction: ModuleType) -> None:
    right = ["A(e1,e2)", "A(e2,e1)", "A(e1,e2)", "B(e1,e2)", "Other", "Other"]
    answer = ["A(e1,e2)", "A(e1,e2)", "Other", "B(e1,e2)", "B(e2,e1)", "Other"]
    a = 2 * 1 / (3 + 2)  # one hit; three stated, two given, the turned one among them
    b = 2 * 1 / (1 + 2)
    assert extraction.macro_f1(right, answer, "Other") == pytest.approx((a + b) / 2)
    assert extraction.macro_f1(right, right, "Other") == 1.0


def test_places_count_from_the_nearest_word_of_an_entity(extraction: ModuleType) -> None:
    zero = extraction.FARTHEST + 1
    found = [extraction._offset(k, 2, 4) - zero for k in (0, 1, 2, 3, 4, 5, 500)]
    assert found == [-2, -1, 0, 0, 1, 2, extraction.FARTHEST]


def test_labels_are_the_relations_of_the_kb_in_their_order(extraction: ModuleType) -> None:
    parse = extraction.parse
    rows = [("<e1>big dog</e1> <e2>cat</e2>", "B"), ("<e1>dog</e1> <e2>cat</e2>", "A"), ("<e1>x</e1> <e2>y</e2>", "B")]
    kb = extraction.label_kb([parse(text, label, "") for text, label in rows], ["A", "B"])
    facts = {
        (kb.entities[h], kb.relations[r], kb.entities[t])
        for h, r, t in zip(kb.train.head, kb.train.relation, kb.train.tail, strict=True)
    }
    assert facts == {("dog", "A", "cat"), ("dog", "B", "cat"), ("x", "B", "y")}


@pytest.mark.parametrize("model", ["lstm", "transformer", "lorentz-transformer"])
def test_padding_does_not_change_logits(extraction: ModuleType, model: str) -> None:
    script = load("relation_extraction")
    sentences = extraction.made_up(script.SMALL)["train"]
    labels = sorted({s.label for s in sentences})
    vocabulary = extraction.Vocabulary(sentences)
    torch.manual_seed(0)
    net = script.MODELS[model](len(vocabulary), len(labels), 16).eval()
    short = min(sentences, key=lambda s: len(s.words))
    longest = max(sentences, key=lambda s: len(s.words))
    with torch.no_grad():
        alone = net(vocabulary.batch([short], labels))[0]
        beside = net(vocabulary.batch([longest, short], labels))[1]
    assert alone.shape == (len(labels),)
    torch.testing.assert_close(alone, beside, rtol=1e-4, atol=1e-5)


def test_the_lorentz_encoder_has_lorentz_layers_and_differs(extraction: ModuleType) -> None:
    script = load("relation_extraction")
    torch.manual_seed(0)
    lorentzian = script.MODELS["lorentz-transformer"](30, 4, 16).eval()
    torch.manual_seed(0)
    plain = script.MODELS["transformer"](30, 4, 16).eval()
    sentences = extraction.made_up(script.SMALL)["train"][:3]
    batch = extraction.Vocabulary([]).batch(sentences, sorted({s.label for s in sentences}))
    assert type(lorentzian.encoder).__module__.startswith("lorentz")
    with torch.no_grad():
        assert not torch.allclose(lorentzian(batch), plain(batch), atol=1e-4)


def test_the_strength_of_the_margin_turns_the_gradient_of_a_model(extraction: ModuleType, tmp_path: Path) -> None:
    script = load("relation_extraction")
    options = script.argparse.Namespace(data=None, seed=0, heads=500)
    task = script.task_of(options)
    batch = task.vocabulary.batch(task.sentences["train"][:16], task.labels)
    gradients = {}
    for name in ("softmax", "margin:0", "margin:2", "margin:8", "random:8"):
        torch.manual_seed(0)
        model = script.MODELS["lstm"](len(task.vocabulary), len(task.labels), 16)
        script.loss_of(task, name, 0)(model.eval()(batch), batch.label).backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(gradients["margin:0"], gradients["softmax"])

    def cosine(a: str, b: str) -> float:
        return float(torch.cosine_similarity(gradients[a], gradients[b], dim=0))

    rounding = 1e-5
    assert cosine("softmax", "margin:0") == pytest.approx(1, abs=rounding)
    assert cosine("softmax", "margin:8") < cosine("softmax", "margin:2") - rounding < 1 - 3 * rounding
    assert cosine("margin:8", "random:8") < 1 - 3 * rounding
    assert gradients["margin:8"].norm() > gradients["margin:2"].norm() > gradients["softmax"].norm()


def test_exchanged_similarities_are_the_same_numbers_elsewhere(extraction: ModuleType) -> None:
    del extraction
    script = load("relation_extraction")
    s = torch.rand(6, 6)
    s = (s + s.T) / 2
    s.fill_diagonal_(1.0)
    result = script.exchanged(s, 0)
    torch.testing.assert_close(result, result.T)
    torch.testing.assert_close(result.flatten().sort().values, s.flatten().sort().values)
    assert not torch.equal(result, s)


def test_a_run_learns_and_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--models", "lstm", "--strengths", "2", "--epochs", "4", "--seeds", "2", "--lr", "0.01")
    first = run("relation_extraction", *arguments)
    rows = first["tables"]["lstm"]
    assert set(rows) == {"softmax", "smoothing", "margin:2", "random:2"}
    for row in rows.values():
        assert row["mean"] == pytest.approx(np.mean(row["values"]))
        assert row["mean"] > 0.3  # by chance one label in 16
    assert (tmp_path / "relation_extraction" / "extraction.png").is_file()
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_: pytest.fail("trained again"))
    assert run("relation_extraction", *arguments, "--resume")["tables"] == first["tables"]
    with pytest.raises(RelsimError, match=r"json: of a run with other settings, .*'dim': 32.*: choose another --out"):
        run("relation_extraction", *arguments, "--resume", "--dim", "16")


def test_the_order_of_answers_is_that_of_the_sentences(extraction: ModuleType) -> None:
    script = load("relation_extraction")
    sentences = extraction.made_up(script.SMALL)["test"]
    labels = sorted({s.label for s in sentences})
    vocabulary = extraction.Vocabulary(sentences)
    torch.manual_seed(0)
    net = script.MODELS["lstm"](len(vocabulary), len(labels), 16).eval()
    task = script.Task({"test": sentences}, labels, vocabulary, torch.eye(len(labels)))
    with torch.no_grad():
        alone = [labels[int(net(vocabulary.batch([s], labels)).argmax())] for s in sentences]
    assert len({len(s.words) for s in sentences}) > 2
    assert len(set(alone)) > 1
    assert script.answers(net, task, "test") == alone
