# SPDX-License-Identifier: Apache-2.0
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.core._evaluation import eval_from, eval_params


class LastState(NamedTuple):
    """A stage that remembers the parameters it saw last, and answers with them."""

    last: gradtx.typing.Updates

    def eval_params(self, params):
        return eval_from(lambda p, last: last, params, self.last)


LAST = gradtx.per_parameter(lambda p: p, lambda g, last, p, t: (g, p), LastState, needs_params=True)
PARAMS = {"a": {"x": jnp.ones(2), "y": jnp.zeros((), jnp.bfloat16)}, "b": jnp.ones(3)}
MOVED = gradtx.apply_updates(PARAMS, PARAMS)


def test_identity_by_default():
    assert eval_params(gradtx.adamw(0.1).init(PARAMS), MOVED) is MOVED


def test_through_chains_and_masks():
    chained = gradtx.named_chain(("clip", gradtx.clip(1.0)), ("rest", gradtx.chain(gradtx.adam(0.1), LAST)))
    found = eval_params(chained.init(PARAMS), MOVED)
    np.testing.assert_array_equal(found["b"], PARAMS["b"])
    assert found["a"]["y"].dtype == jnp.bfloat16
    for mask in ({"a": {"x": True, "y": False}, "b": False}, {"a": False, "b": True}):
        found = eval_params(gradtx.masked(LAST, mask).init(PARAMS), MOVED)
        expected_b = PARAMS if mask["b"] else MOVED
        np.testing.assert_array_equal(found["b"], expected_b["b"])
        expected_x = PARAMS if mask["a"] else MOVED
        np.testing.assert_array_equal(found["a"]["x"], expected_x["a"]["x"])
