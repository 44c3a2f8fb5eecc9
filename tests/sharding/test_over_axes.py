# SPDX-License-Identifier: Apache-2.0
"""`over_axes`: inside `shard_map` and `pmap`, every number of a whole parameter or tree is the one of one device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx.sharding import over_axes
from gradtx.testing._case import example_gradients
from support.registry import COVERED, example

MESH = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
ROW = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

PARAMS = {
    "w": jnp.linspace(-1.0, 1.0, 96).reshape(8, 12),
    "v": jnp.linspace(0.5, 1.5, 8),
    "b": jnp.full(3, 0.5, jnp.float32),
}
SPECS = {"w": P("data", "model"), "v": P("model"), "b": P()}
GRADIENTS = example_gradients(PARAMS)


def half_square(params: Any) -> jax.Array:
    """A loss of the whole of the parameters, on one device."""
    return 0.5 * sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params))


def half_square_over(params: Any) -> jax.Array:
    """The same where each device has its part."""
    own = {n: 0.5 * jnp.sum(jnp.square(p)) for n, p in params.items()}
    return jax.lax.psum(own["w"], ("data", "model")) + jax.lax.psum(own["v"], "model") + own["b"]


def unchanged(params: Any, *_: Any) -> Any:
    return params


def two_steps(tx: Any, loss: Any, params: Any, gradients: Any) -> tuple:
    """Final parameters, and the updates of two steps."""
    state, found = tx.init(params), []
    for scale in (1.0, 1.25):
        g = jax.tree.map(lambda x, scale=scale: scale * x, gradients)
        extra = {"value": jnp.asarray(1.5, jnp.float32), "grad": g, "value_fn": loss, "obj_fn": loss}
        extra |= {"sampled_grad": unchanged, "grad_fn": unchanged}
        extra |= {"sum_sq_diff_grads": jax.tree.map(jnp.square, g), "sample_size": jnp.asarray(3, jnp.int32)}
        updates, state = tx.update(g, state, params, **extra)
        params = gt.apply_updates(params, updates)
        found.append(updates)
    return params, found


def on_mesh(tx: Any, axes: Any = SPECS, check: bool = True) -> tuple:
    run = functools.partial(two_steps, over_axes(tx, axes), half_square_over)
    mapped = jax.shard_map(run, mesh=MESH, in_specs=(SPECS, SPECS), out_specs=(SPECS, [SPECS, SPECS]), check_vma=check)
    return jax.jit(mapped)(PARAMS, GRADIENTS)


def assert_like_one_device(found: Any, wanted: Any, ulps: float = 8) -> None:
    """Equal up to the rounding of sums in another order, relative to the largest number of each array."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        scale = float(jnp.max(jnp.abs(b)))
        np.testing.assert_allclose(a, b, rtol=0, atol=ulps * 2.0**-23 * scale)


UNLIKE: dict[str, str] = {}
"""Factories whose numbers differ from those of one device, and why."""


def cases() -> list[Any]:
    mark = lambda n: pytest.mark.xfail(reason=UNLIKE[n], strict=True)  # noqa: E731  # used in the next line only
    return [pytest.param(n, marks=mark(n)) if n in UNLIKE else n for n in COVERED if n != "over_axes"]


@pytest.mark.whole
@pytest.mark.parametrize("name", cases())
def test_two_steps_of_every_factory_are_those_of_one_device(name: str):
    tx = example(name)
    wanted = jax.jit(functools.partial(two_steps, tx, half_square))(PARAMS, GRADIENTS)
    assert_like_one_device(on_mesh(tx), wanted)
