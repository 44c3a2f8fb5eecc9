# SPDX-License-Identifier: Apache-2.0
"""Clauses on where and how a state is kept: over devices, in few bits, for layers in a stack."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx._roles._boxing import with_roles
from gradtx.core._payloads import payloads
from gradtx.core._roles import Role
from gradtx.precision._int8 import int8
from gradtx.precision._stored import stored
from gradtx.sharding._init_sharded import init_sharded
from gradtx.testing._case import Case, is_inexact
from gradtx.testing._clauses import keeps_state_types
from gradtx.testing._compare import NotApplicable, finite, same_values


def sharded(case: Case) -> None:
    """With parameters, gradients and state split over the devices at hand, the run is that of one device."""
    devices = jax.device_count()
    if devices < 2:
        raise NotApplicable("there is one device only")
    mesh = jax.make_mesh((devices,), ("devices",), axis_types=(AxisType.Auto,))

    draws = np.random.default_rng(11)

    def lengthened(x: jax.Array) -> jax.Array:
        """The array several times along its first axis, so that it can be split, and no two parts are alike."""
        long = jnp.concatenate([x] * devices) if x.ndim else x
        return long * jnp.asarray(draws.uniform(0.5, 1.5, long.shape), x.dtype) if is_inexact(x) else long

    def placed(x: jax.Array) -> jax.Array:
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*["devices"] * min(x.ndim, 1))))

    whole = case.like(*(jax.tree.map(lengthened, tree) for tree in (case.params, case.gradients)), steps=case.steps)
    split = whole.like(*(jax.tree.map(placed, tree) for tree in (whole.params, whole.gradients)), steps=case.steps)
    found = split.run(lambda params: init_sharded(case.tx, params, mesh=mesh), jax.jit(split.step))[-1]
    # A norm or a mean of one part is another number altogether; iterations on matrices differ by this much in rounding.
    for part in ("updates", "params"):
        a, b = getattr(found, part), getattr(whole.plain[-1], part)
        same_values(f"the {part} over {devices} devices", a, "those on one", b, exact=False, tolerance=1e-4)


def storable(case: Case) -> None:
    """`gradtx.stored` can keep its slots in 8 bits: the state's types stay, and updates are finite."""
    if not case.in_one_memory:
        raise NotApplicable("its state lies in another memory: `stored` belongs inside of what moves it there")
    params, gradients = _layers(0)[0], _layers(1)[0]
    eight = dataclasses.replace(
        case.like({"w": params}, {"w": gradients}, steps=2), tx=stored(case.tx, int8(4), min_size=0)
    )
    if not payloads(jax.eval_shape(eight.tx.init, eight.params)):
        raise NotApplicable("it keeps no array for each parameter")
    keeps_state_types("kept in 8 bits", eight)
    for i, step in enumerate(eight.plain, 1):
        finite(f"kept in 8 bits, the updates of step {i}", step.updates)


def stacked(case: Case) -> None:
    """Layers in a stack, which `gradtx.with_roles` declares, get the updates that each gets as a leaf of its own."""
    params, gradients = _layers(0), _layers(1)
    together = case.like({"w": params}, {"w": gradients}, steps=2)
    apart = case.like({"w": list(params)}, {"w": list(gradients)}, steps=2)
    roles = Role("hidden", stack=0, in_axes=1, out_axes=2), Role("hidden", in_axes=0, out_axes=1)
    stack, leaves = (
        dataclasses.replace(c, tx=with_roles([("**", role)], case.tx)).plain[-1].updates["w"]
        for c, role in zip((together, apart), roles, strict=True)
    )
    same_values("the updates of a stack of layers", stack, "those of each layer", jnp.stack(leaves), exact=False)


def _layers(seed: int) -> jax.Array:
    """A stack of matrices of very different sizes, so that a number of all of them is far from that of each."""
    sizes = np.array([0.1, 1.0, 10.0]).reshape(-1, 1, 1)
    return jnp.asarray(sizes * np.random.default_rng(seed).normal(size=(len(sizes), 4, 8)), jnp.float32)
