"""The experiments with relation similarity as a newcomer runs them: files, resuming, and what they say of faults."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from relsim.agreement import above, auc
from relsim.data import nations
from relsim.errors import RelsimError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Run = Callable[..., dict[str, Any]]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a script with arguments, in this process and in `tmp_path`, and return its result."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def main(name: str, *arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, "--no-progress", "--device", "cpu", *arguments])
        module = load(name)
        module.main()
        out = tmp_path / (arguments[arguments.index("--out") + 1] if "--out" in arguments else name)
        return json.loads((out / "result.json").read_text(encoding="utf-8"))

    return main


QUICK = ("--epochs", "2", "--seeds", "2", "--dim", "8")
AGREEMENT = (*QUICK, "--kinds", "mlp", "counts", "--redraws", "2", "--draws", "99", "--transe-epochs", "2")


def test_agreement_has_every_form_and_baseline_and_goes_on_without_fitting_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("relation_similarity", *AGREEMENT)
    table = first["tables"]["nations"]
    forms = ("KL max", "KL min", "KL mean", "head KL mean", "tail KL min", "JS", "KL max, centred")
    assert {f"{kind}: {form}" for kind in ("mlp", "counts") for form in forms} <= set(table)
    assert sum(name.startswith("baseline") for name in table) == 8  # counts, TransE and the vectors of the perceptron
    for entry in table.values():
        for key in ("auc", "ap"):
            low, high = entry[key]["interval"]
            assert 0 <= low <= entry[key]["value"] + 0.1
            assert low <= high <= 1
            assert 1 / 100 <= entry[key]["p"] <= 1
    spread = first["spread"]["nations"]["mlp: KL max"]
    assert 0 < spread["monte_carlo"]["auc"] < spread["training"]["auc"]
    out = tmp_path / "relation_similarity"
    assert (out / "agreement.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("relsim.fit", lambda *_, **__: pytest.fail("fitted again"))
    again = run("relation_similarity", *AGREEMENT, "--resume")
    assert again["tables"] == first["tables"]
    assert again["chosen"] == first["chosen"]
    with pytest.raises(RelsimError, match="not empty: go on with --resume"):
        run("relation_similarity", *AGREEMENT)


def test_the_simplest_similarity_near_the_best_is_chosen(run: Run) -> None:
    del run  # for the path to the scripts
    script = load("relation_similarity")
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 5, 30)
    gold = kind[:, None] == kind[None]
    np.fill_diagonal(gold, False)
    noise = rng.normal(size=(2, 30, 30))
    noise += noise.swapaxes(1, 2)
    good, bad = gold + 0.7 * noise[0], gold + 3.0 * noise[1]
    options = script.argparse.Namespace(draws=99, seed=0)

    def choice(**scores: np.ndarray) -> str:
        named = {name.replace("_", " ").replace("plus", "+"): score for name, score in scores.items()}
        named["baseline: tails"] = bad
        named["control: words"] = gold.astype(float)  # would win if it could
        return script.chosen(gold, named, script.table_of(gold, named, options), 99)

    assert choice(
        **{"counts: JS of tails": good, "mlp: KL max": good, "JS of tails plus mlp: KL max": good + 1e-3 * gold}
    ) == ("counts: JS of tails")
    assert (
        choice(**{"counts: JS of tails": bad, "mlp: KL max": good, "JS of tails plus mlp: KL max": good})
        == "mlp: KL max"
    )


def test_judged_pairs_that_cannot_be_read_are_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gold.tsv").write_text("embassy\treldiplomacy\nembassy\n", encoding="utf-8")
    with pytest.raises(RelsimError, match=r"gold.tsv:2: expected two names"):
        run("relation_similarity", "--gold", "gold.tsv", "--kinds", "counts")
    (tmp_path / "other.tsv").write_text("P1\tP2\n", encoding="utf-8")
    with pytest.raises(RelsimError, match="judges no pair of the 55 relations"):
        run("relation_similarity", "--gold", "other.tsv", "--kinds", "counts", "--resume")


def test_the_bundled_judgements_are_relations_of_nations() -> None:
    lines = (EXAMPLES / "relation_similarity" / "nations.tsv").read_text(encoding="utf-8").splitlines()
    assert {name for line in lines for name in line.split("\t")} <= set(nations().relations)
    assert len(lines) == len(set(lines)) == 20


def test_split_relations_are_found_better_than_by_chance(run: Run, tmp_path: Path) -> None:
    result = run("split_relations", *QUICK, "--draws", "50", "--hidden", "32")
    for table, cut in zip(result["tables"], result["cuts"], strict=True):
        share = cut["pairs"] / (cut["relations"] * (cut["relations"] - 1) / 2)
        best = table["counts: JS of heads and tails, centred"]
        assert best["auc"] > 0.6
        assert best["ap"] > share
        assert best["f1"] == pytest.approx(
            2 * best["precision"] * best["recall"] / (best["precision"] + best["recall"])
        )
        assert table["baseline: jaccard pair"]["auc"] < 0.5  # parts share no fact
    assert (tmp_path / "split_relations" / "split.png").is_file()


def test_redundant_phrases_of_the_small_file_are_found(run: Run) -> None:
    result = run("openie_redundancy", "--draws", "50")
    table = result["table"]
    assert result["phrases"] == 19
    assert result["positives"] == 3 + 3 + 1 + 1 + 1 + 1 + 3 + 1
    assert table["counts: JS of heads and tails"]["ap"] > 0.6 > table["baseline: Jaccard of words"]["ap"]
    for row in result["recall_estimates"]:
        assert row["mean, by similarity"] == pytest.approx(row["recall"], abs=0.05)


def test_extractions_of_another_form_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('[{"head": "a"}]', encoding="utf-8")
    with pytest.raises(RelsimError, match=r"bad.json: not a JSON list of extractions \(KeyError\('h'\)\)"):
        run("openie_redundancy", "--data", "bad.json")


def test_relation_prediction_learns_and_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--epochs", "10", "--seeds", "2", "--dim", "8", "--scorers", "transe", "--alphas", "5:0.5")
    first = run("relation_prediction", *arguments)
    assert {entry["strategy"] for entry in first["trainings"]} == {"uniform", "frequency", "5:0.5"}
    assert len(first["trainings"]) == 6
    for entry in first["trainings"]:
        assert (
            entry["test"]["mrr"] > 0.15
        )  # by chance about 0.1: the mean of 1 / k for the 45 relations that do not hold
        assert sum(entry["similarity_rank_shares"]) == pytest.approx(1)
    assert (tmp_path / "relation_prediction" / "errors.png").is_file()
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", lambda *_: pytest.fail("trained again"))
    again = run("relation_prediction", *arguments, "--resume")
    assert again["summary"] == first["summary"]


@pytest.mark.parametrize("scorer", ["TransE", "Hybo"])
def test_ranks_are_those_of_a_plain_loop(run: Run, tmp_path: Path, scorer: str) -> None:
    del run
    script = load("relation_prediction")
    options = script.argparse.Namespace(heads=14, progress=False, out=tmp_path)
    task = script.task_of(nations(), options)
    model = getattr(script, scorer)(14, 55, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # all relations of a fresh HyboNet are alike
    ranks, first = script.evaluate(model, task, "test")
    known = {tuple(row) for part in task.facts.values() for row in part.tolist()}
    for (h, r, t), rank, answer in list(zip(task.facts["test"].tolist(), ranks, first, strict=True))[::9]:
        with torch.no_grad():
            score = model(torch.tensor([h]), torch.arange(55)[None], torch.tensor([t]))[0]
        rivals = [k for k in range(55) if k == r or (h, k, t) not in known]
        assert rank == 1 + sum(float(score[k] > score[r]) for k in rivals)
        assert int(answer) == max(rivals, key=lambda k: float(score[k]))


def test_similar_wrong_relations_are_drawn_and_known_ones_do_not_count(run: Run, tmp_path: Path) -> None:
    del run
    script = load("relation_prediction")
    options = script.argparse.Namespace(heads=14, progress=False, out=tmp_path, negatives=50)
    task = script.task_of(nations(), options)
    right = torch.arange(55)
    mean = {
        strategy: float(np.mean(task.distance[right[:, None], script.draws(task, strategy, options)(right, 1.0)]))
        for strategy in ("uniform", "50:0.2")
    }
    assert mean["50:0.2"] < 0.8 * mean["uniform"]
    h, r, t = task.facts["train"].T
    assert bool(task.train_known.of(h, t).gather(1, r[:, None]).all())
    total = len({tuple(row) for row in task.facts["train"].tolist()})
    pairs = torch.unique(torch.stack([h, t], 1), dim=0)
    assert int(task.train_known.of(pairs[:, 0], pairs[:, 1]).sum()) == total


def test_ranks_of_wrong_answers_count_from_the_nearest(run: Run) -> None:
    del run
    script = load("relation_prediction")
    distance = np.array([[0, 1, 2, 3], [1, 0, 5, 4], [2, 5, 0, 9], [3, 4, 9, 0.0]])
    task = script.Task(nations(), {}, None, None, distance)
    ranks = script.similarity_ranks(task, np.array([0, 0, 1, 2]), np.array([3, 0, 0, 1]))
    assert ranks.tolist() == [3, 1, 2]
    assert script.shares(np.array([1, 2, 3, 4, 60])) == [0.2, 0.4, 0.2, 0.0, 0.2]


@pytest.mark.data
def test_tails_of_smoothed_counts_beat_every_baseline_of_counts_on_codex(shared_data: Path, run: Run) -> None:
    """On CoDEx-S: what was chosen there has a part that needs no model, and already leads in AUC and in AP."""
    del run
    script = load("relation_similarity")
    kb = script.knowledge_base(shared_data / "codex-s")
    names = ("related_property", "subproperty_of")
    gold = script.judged(kb, [shared_data / "wikidata-properties" / f"{name}.tsv" for name in names])
    assert int(above(gold).sum()) == 21
    scores = script.of_counts(kb, script.argparse.Namespace(transe_epochs=1, seed=0))
    ours = scores.pop("counts: JS of tails, centred")
    scores.pop("counts: JS of tails")
    for statistic in (auc, script.average_precision):
        assert statistic(above(gold), above(ours)) > max(
            float(statistic(above(gold), above(s))) for s in scores.values()
        )
