# SPDX-License-Identifier: Apache-2.0
"""One line changes, the numbers do not: a script written for optax, run with both libraries."""

from pathlib import Path

import jax
import numpy as np
import pytest

import gradtx as gt
from gradtx.compat import optax

SCRIPT = Path(__file__).parent / "training.py"
THEIRS, OURS = "import optax\n", "from gradtx.compat import optax\n"


def run(source: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    scope: dict = {"__name__": "training"}
    exec(compile(source, str(SCRIPT), "exec"), scope)
    return scope["RESULTS"], scope["SEARCHES"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")  # optax's global_norm
@pytest.mark.usefixtures("standard_promotion")
def test_the_same_losses():
    source = SCRIPT.read_text()
    assert source.count(THEIRS) == 1
    (theirs, their_searches), (ours, searches) = run(source), run(source.replace(THEIRS, OURS))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
        losses = expected[:-3:2]
        assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:3]), f"{name} does not train"
    np.testing.assert_allclose(searches["backtracking"], their_searches["backtracking"], rtol=1e-5)
    # Its trials are other ones, see the page on differences.
    np.testing.assert_allclose(searches["zoom"], their_searches["zoom"], rtol=0.02)
    assert all(values[-1] < 0.9 * values[0] for values in searches.values())


@pytest.mark.usefixtures("standard_promotion")
def test_optaxs_defaults():
    """Where a default of gradtx differs on purpose, the name in compat has optax's."""
    micro = optax.MultiSteps(optax.sgd(0.1), 2)
    assert micro == gt.MultiSteps(gt.sgd(0.1), 2, should_skip_update_fn=None, accumulator_dtype="float32")
    assert isinstance(micro, optax.MultiSteps) and isinstance(gt.MultiSteps(gt.sgd(0.1), 2), optax.MultiSteps)
    assert not isinstance(optax.sgd(0.1), optax.MultiSteps)
    assert micro.gradient_transformation() is micro and micro.inner_opt == gt.sgd(0.1)
    assert optax.optimistic_adam(0.1, 0.2, b1=0.8) == gt.optimistic_adam(0.1, 0.2, b1=0.8, from_zero=False)
    assert optax.optimistic_adam_v2(0.1, beta=2.0) == gt.optimistic_adam_v2(0.1, beta=2.0, from_zero=False)


@pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")
@pytest.mark.usefixtures("standard_promotion")
def test_the_first_step_of_optimistic_adam():
    import optax as theirs

    p = {"w": jax.numpy.ones(2)}
    for name in ("optimistic_adam", "optimistic_adam_v2"):
        a, b = (getattr(lib, name)(0.1).update(p, getattr(lib, name)(0.1).init(p), p)[0] for lib in (optax, theirs))
        np.testing.assert_allclose(a["w"], b["w"], rtol=1e-5)
