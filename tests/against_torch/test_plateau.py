# SPDX-License-Identifier: Apache-2.0
"""reduce_on_plateau against torch.optim.lr_scheduler.ReduceLROnPlateau.

torch reduces once more than `patience` metrics were bad, gradtx once `patience` were; `min_lr` is a rate, `min_scale` a
part of the first one. torch takes the relative margin of the signed best, so its relative mode is compared on positive
metrics.
"""

import numpy as np
import pytest

import gradtx as gt

torch = pytest.importorskip("torch")

RATE = 0.5


def rates_of_torch(values, **settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, eps=0.0, **settings)
    rates = []
    for value in values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def rates(values, *args, **kwargs):
    tx = gt.chain(gt.sgd(RATE), gt.reduce_on_plateau(*args, **kwargs))
    one, found = np.ones(1), []
    state = tx.init(one)
    for value in values:
        updates, state = tx.update(one, state, one, value=value)
        found.append(-float(updates[0]))
    return found


def metrics(seed, offset):
    random = np.random.default_rng(seed)
    return offset + 3 * np.exp(-np.arange(80) / 20) + 0.3 * random.normal(size=80)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 4])
@pytest.mark.parametrize("cooldown", [0, 3])
def test_relative(mode, patience, cooldown, x64):
    for seed in range(3):
        values = metrics(seed, 5.0) if mode == "min" else 20.0 - metrics(seed, 5.0)
        expected = rates_of_torch(values, mode=mode, factor=0.7, patience=patience, cooldown=cooldown, threshold=0.02)
        found = rates(values, 0.7, patience + 1, 0.02, cooldown=cooldown, mode=mode)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert len(set(expected)) > 2


@pytest.mark.parametrize("offset", [5.0, -20.0])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_absolute_and_the_smallest_rate(mode, offset, x64):
    values = metrics(5, offset) if mode == "min" else -metrics(5, offset)
    expected = rates_of_torch(
        values, mode=mode, factor=0.5, patience=2, threshold=0.1, threshold_mode="abs", min_lr=0.04 * RATE
    )
    found = rates(values, 0.5, 3, 0.0, 0.1, min_scale=0.04, mode=mode)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[-1] == pytest.approx(0.04 * RATE)


def test_negative_metrics_in_relative_mode():
    """In torch a negative metric that stands still improves for ever, as in optax."""
    values = [-4.0] * 20
    assert set(rates_of_torch(values, factor=0.5, patience=2, threshold=0.01)) == {RATE}
    assert len(set(rates(values, 0.5, 3, 0.01))) > 4
