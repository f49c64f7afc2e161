"""The Jensen-Shannon divergence against scipy and against enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from relsim.jensen import jensen_shannon, jensen_shannon_of_facts, smoothed_marginal
from relsim.kb import KB
from tests.relsim.conftest import random_model


def test_rows_agree_with_scipy() -> None:
    p = np.random.default_rng(0).dirichlet(np.full(9, 0.3), 5)
    p[0] = 0
    p[0, 2] = 1  # zeros are no difficulty
    expected = [[jensenshannon(a, b) ** 2 for b in p] for a in p]
    np.testing.assert_allclose(jensen_shannon(p), expected, atol=1e-12)


def test_rows_that_exclude_each_other_are_ln_2_apart() -> None:
    assert jensen_shannon(np.eye(2))[0, 1] == pytest.approx(math.log(2))


def test_facts_agree_with_enumeration_within_their_standard_error() -> None:
    model = random_model(7, 4)
    with torch.no_grad():
        heads, relations = torch.arange(7), torch.arange(4)
        tail = model.tail_natural_grid(heads, relations)
        log = torch.log_softmax(model.tail_logits(tail.flatten(0, 1)), -1).reshape(7, 4, 7).transpose(0, 1)
        joint = (model.head_log_prob(relations)[:, :, None] + log).exp().flatten(1).numpy()
    np.testing.assert_allclose(joint.sum(1), 1, atol=1e-12)
    exact = jensen_shannon(joint)
    pairs = np.triu_indices(4, 1)
    z = []
    for seed in range(40):
        estimate, stderr = jensen_shannon_of_facts(model, 50, seed)
        np.testing.assert_array_equal(estimate, estimate.T)
        z.append(((estimate - exact) / np.maximum(stderr, 1e-12))[pairs])
    assert abs(np.mean(z)) < 4 / math.sqrt(40)  # pairs of one seed are not independent
    assert 0.7 < np.std(z) < 1.4


def test_the_smoothed_marginal_is_the_formula() -> None:
    kb = KB.from_names([("a", "r", "b"), ("a", "r", "c"), ("b", "s", "c")], valid=[("c", "r", "c")])
    index = [kb.entities.index(name) for name in "abc"]
    r, s = smoothed_marginal(kb, "tail", 0.1)[:, index]
    background = np.array([1, 2, 4]) / 7
    np.testing.assert_allclose(r, 0.9 * np.array([0, 1, 2]) / 3 + 0.1 * background)
    np.testing.assert_allclose(s, 0.9 * np.array([0, 0, 1]) + 0.1 * background)
    with pytest.raises(ValueError, match="background"):
        smoothed_marginal(kb, background=0.0)


def test_a_relation_without_facts_is_the_background() -> None:
    kb = KB.from_names([("a", "r", "b")])
    bare = KB(kb.entities, [*kb.relations, "unused"], kb.splits)
    np.testing.assert_allclose(smoothed_marginal(bare)[1].sum(), 1)
    np.testing.assert_allclose(smoothed_marginal(bare)[1], np.array([1, 2]) / 3)
