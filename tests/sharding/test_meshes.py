# SPDX-License-Identifier: Apache-2.0
"""Two steps of every factory on a mesh, with automatic and with explicit axes, are those of one device.

Their state lies where `state_shardings` says, before and after. Arrays are large enough for presets to encode them.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx.sharding import init_sharded
from support.meshes import SPECS, mesh, numbers, put
from support.registry import COVERED, EXTRA, example

PARAMS = {n: x for n, x in numbers().items() if n != "n"}
GRADIENTS = [{n: x for n, x in numbers(seed, 0.1).items() if n != "n"} for seed in (1, 2)]
SPREAD = {n: SPECS[n] for n in PARAMS}

SUMS = {"momo_adam", "momo", "hyperball", "scale_by_hyperball", "schedule_free_plus", "keep_norm", "mechanize"}
SUMS |= {"muon_hyperball", "muon", "scale_by_muon", "muon8bit", "low_rank", "galore", "scale_by_galore", "trac"}
"""What they divide by or iterate on is a sum over 2^17 elements, which devices add in another order."""

NEAR_ZERO = {"fira", "scale_by_fira"}
"""They divide by norms of projections, some of which are near 0: the rounding of singular vectors shows."""

DECOMPOSED = {
    f"{before}{name}" for before in ("", "scale_by_") for name in ("soap", "kl_soap", "shampoo", "kl_shampoo")
}
DECOMPOSED |= {"psgd_kron", "scale_by_psgd_kron", "polargrad", "scale_by_polargrad"}
SUMS |= DECOMPOSED
"""They take roots, bases or singular vectors, which take long of large matrices, and of which those of others than
square ones are arbitrary in a space of gradients 0. Rounding grows in them too."""

ELSEWHERE = {"zero", "sophia", "scale_by_sophia", "hutchinson_estimator_diag_hessian"}
ELSEWHERE |= {"track_per_element_mean_and_variance_with_ema"}
"""Of a mesh of their own, or with trees like other parameters among their arguments."""


def half_square(params):
    return sum(jnp.sum(x**2) / 2 for x in jax.tree.leaves(params))


def smaller(name, tree):
    return {n: x[(slice(32),) * x.ndim] if name in DECOMPOSED else x for n, x in tree.items()}


def two_steps(tx, name):
    def run(params, state, gradients):
        found = []
        for g in gradients:
            given = {"value": jnp.asarray(1.5, jnp.float32), "grad": g, "value_fn": half_square}
            u, state = tx.update(g, state, params, **{**given, **EXTRA.get(name, {})})
            params = jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, u)
            found.append(u)
        return found, state

    return run


def rounds(state):
    """Whether something in the state has few bits, so that one more or less in the last of a float32 can be more."""
    kinds = {x.dtype for x in jax.tree.leaves(state) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)}
    return any(k.itemsize < 4 and k != jnp.bool_ for k in kinds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("name", [n for n in COVERED if n not in ELSEWHERE])
def test_two_steps_are_those_of_one_device(name, kind):
    tx, on = example(name), mesh(kind)
    run = jax.jit(two_steps(tx, name))
    start, gradients = smaller(name, PARAMS), [smaller(name, g) for g in GRADIENTS]
    params = put(start, on, SPREAD)
    start = jax.tree.map(jnp.asarray, start)
    want = run(start, tx.init(start), jax.tree.map(jnp.asarray, gradients))
    state = init_sharded(tx, params)
    lies = jax.tree.map(lambda x: x.sharding, state)
    with jax.set_mesh(on):
        got = jax.jit(two_steps(tx, name), out_shardings=(None, lies))(
            params, state, [put(g, on, SPREAD) for g in gradients]
        )
    limit = 5e-3 if rounds(state) else 1e-2 if name in NEAR_ZERO else 1e-5 if name in SUMS else 1e-6
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(got), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            size = np.max(np.abs(a), initial=0)
            np.testing.assert_allclose(b, a, rtol=0, atol=limit * size, err_msg=jax.tree_util.keystr(path))


MATRICES = {"a": (16, 32), "b": (32, 16)}


@pytest.mark.parametrize("spec", [P("x"), P(None, "x")])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_muon_gathers_each_matrix_once_and_none_in_its_loop(kind, spec):
    on = mesh(kind, x=8)
    params = {n: jax.device_put(jnp.ones(shape), NamedSharding(on, spec)) for n, shape in MATRICES.items()}
    tx = gt.muon(0.1)
    with jax.set_mesh(on):
        text = jax.jit(tx.update).lower(params, init_sharded(tx, params), params).compile().as_text()
    found = re.findall(r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", text)
    assert found == ["all-gather"] * len(MATRICES)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_matrices_that_are_alike_are_gathered_or_spread_at_once(kind):
    """Types tell on explicit axes that each device can have three of them; see test_spread_matrices.py."""
    on = mesh(kind, x=8)
    params = {str(i): jax.device_put(jnp.ones((16, 32)), NamedSharding(on, P("x"))) for i in range(24)}
    tx = gt.muon(0.1)
    with jax.set_mesh(on):
        text = jax.jit(tx.update).lower(params, init_sharded(tx, params), params).compile().as_text()
    found = re.findall(r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", text)
    assert found == (["all-gather"] if kind == AxisType.Auto else ["all-to-all"] * 2)
