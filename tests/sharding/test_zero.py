# SPDX-License-Identifier: Apache-2.0
"""ZeRO-1: bytes, collectives in the compiled step, and the numbers of one device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx.sharding import bytes_per_device, init_sharded, state_shardings, zero
from support.meshes import SHAPES, SPECS, mesh, numbers, put, structs

REPLICATED = {n: P() for n in SHAPES}
KINDS = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])


def on_data(kind):
    on = mesh(kind, data=8)
    specs = {n: P(*[None] * len(s)) for n, s in SHAPES.items()} if kind == AxisType.Explicit else REPLICATED
    return on, put(numbers(), on, specs)


def loss(p, x):
    hidden = jnp.tanh(x @ p["w"] + p["b"][None])
    return jnp.mean((hidden @ p["v"]) ** 2) + jnp.sum(p["n"] ** 2)


def step_of(tx):
    def step(p, state, x):
        u, state = tx.update(jax.grad(loss)(p, x), state, p)
        return gt.apply_updates(p, u), state

    return jax.jit(step, donate_argnums=(0, 1))


def count(text, name):
    return len(re.findall(rf" {name}(?:-start)?\(", text))


@KINDS
def test_adamw_takes_an_eighth_and_one_gather_for_each_leaf(kind):
    on, params = on_data(kind)
    tx = zero(gt.adamw(1e-3))
    found = bytes_per_device(tx, params)
    assert found.per_device <= 0.126 * found.total
    x = jax.device_put(np.random.default_rng(3).normal(size=(64, 256)).astype(np.float32), NamedSharding(on, P("data")))
    with jax.set_mesh(on):
        state = init_sharded(tx, params)
        want = jax.tree.map(lambda x: x.sharding, (params, state))
        step = step_of(tx)
        text = step.lower(params, state, x).compile().as_text()
        for _ in range(2):
            params, state = step(params, state, x)
    assert count(text, "all-reduce") <= len(params)  # for the gradients, whose batch is split
    assert 1 <= count(text, "all-gather") <= len(params)
    assert count(text, "all-to-all") == count(text, "collective-permute") == 0
    assert step._cache_size() == 1
    assert jax.tree.map(lambda x: x.sharding, (params, state)) == want


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize(
    "inner",
    [gt.adamw(1e-2), gt.chain(gt.clip_by_global_norm(1.0), gt.lamb(1e-2)), gt.adafactor(1e-2), gt.muon(1e-2)],
    ids=["adamw", "clip-lamb", "adafactor", "muon"],
)
def test_the_numbers_of_one_device(inner, kind):
    on, params = on_data(kind)
    tx, one = zero(inner), {n: jnp.asarray(x) for n, x in numbers().items()}
    start = one
    with jax.set_mesh(on):
        state, one_state = init_sharded(tx, params), inner.init(one)
        update, update_one = jax.jit(tx.update), jax.jit(inner.update)
        for seed in (1, 2):
            g = numbers(seed, 0.1)
            u, state = update(put(g, on, jax.tree.map(lambda x: x.sharding.spec, params)), state, params)
            params = gt.apply_updates(params, u)
            v, one_state = update_one(jax.tree.map(jnp.asarray, g), one_state, one)
            one = gt.apply_updates(one, v)
    for n in start:
        scale = np.abs(one[n] - start[n]).max()
        np.testing.assert_allclose(params[n], one[n], rtol=1e-6, atol=2e-5 * scale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), state, one_state)


@pytest.mark.slow
@pytest.mark.parametrize("scatter", [False, True])
@pytest.mark.parametrize("check", [False, True], ids=["unchecked", "checked"])
@pytest.mark.parametrize(
    "inner",
    [gt.chain(gt.clip_by_global_norm(1.0), gt.lamb(1e-2)), gt.adafactor(1e-2), gt.muon(1e-2)],
    ids=["clip-lamb", "adafactor", "muon"],
)
def test_inside_of_shard_map(inner, check, scatter):
    """Each device gives the gradient of its own batch, with `scatter`, or the mean."""
    on, params = on_data(AxisType.Auto)
    tx = zero(inner, scatter=scatter)
    state = init_sharded(tx, params)
    specs = jax.tree.map(lambda x: x.sharding.spec, state)
    g = {n: np.stack([x * (1 + i) for i in range(8)]) for n, x in numbers(1, 0.1).items()}

    def body(g, state, params):
        g = jax.tree.map(lambda x: x[0], g)
        return tx.update(g if scatter else jax.lax.pmean(g, "data"), state, params)

    split = jax.shard_map(body, mesh=on, in_specs=(P("data"), specs, P()), out_specs=(P(), specs), check_vma=check)
    compiled = jax.jit(split).lower(g, state, params).compile()
    u, state = compiled(g, state, params)
    one = {n: jnp.asarray(x) for n, x in numbers().items()}
    mean = jax.tree.map(lambda x: jnp.asarray(x.mean(0)), g)
    want, want_state = jax.jit(inner.update)(mean, inner.init(one), one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7), (u, state), (want, want_state))
    assert count(compiled.as_text(), "reduce-scatter") == (len(params) if scatter else 0)


def test_init_inside_of_shard_map_and_an_axis_for_the_model():
    on = mesh()
    specs = {"w": P(None, "model"), "v": P("model"), "b": P("model"), "n": P()}
    params = put(numbers(), on, specs)
    tx = zero(gt.chain(gt.clip_by_global_norm(1.0), gt.adafactor(1e-2)), specs=specs)
    want = init_sharded(tx, params)
    kept = jax.tree.map(lambda x: x.sharding.spec, want)
    made = jax.jit(jax.shard_map(tx.init, mesh=on, in_specs=(specs,), out_specs=kept, check_vma=False))(params)
    jax.tree.map(np.testing.assert_array_equal, made, want)

    def body(g, state, params):
        return tx.update(g, state, params)

    split = jax.shard_map(body, mesh=on, in_specs=(specs, kept, specs), out_specs=(specs, kept), check_vma=False)
    u, _ = jax.jit(split)(params, made, params)
    one = {n: jnp.asarray(x) for n, x in numbers().items()}
    v, _ = jax.jit(tx.arguments["inner"].update)(one, tx.arguments["inner"].init(one), one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7), u, v)


def test_beside_an_axis_for_the_model():
    """`specs` tell a layout that traced arrays on automatic axes do not."""
    on = mesh()
    params = put(numbers(), on, {"w": P(None, "model"), "v": P("model"), "b": P("model"), "n": P()})
    specs = jax.tree.map(lambda x: x.sharding.spec, params)
    tx = zero(gt.adam(1e-3), specs=specs)
    state = init_sharded(tx, params)
    want = {"w": P("data", "model"), "v": P("model", "data"), "b": P("model"), "n": P("data")}
    assert jax.tree.map(lambda x: x.sharding.spec, state[0].mu) == want
    with jax.set_mesh(on):
        u, state = jax.jit(tx.update)(params, state, params)
    assert jax.tree.map(lambda x: x.sharding.spec, state[0].mu) == want
    assert jax.tree.map(lambda x: x.sharding.spec, u) == specs


def test_what_is_split_already_and_what_cannot_be():
    on = mesh()
    params = structs(on, SPECS) | {"odd": jax.ShapeDtypeStruct((7, 5), jnp.float32, sharding=NamedSharding(on, P()))}
    found = state_shardings(zero(gt.adam(1e-3)), params)[0].mu
    assert found["w"].spec == SPECS["w"]
    assert found["odd"].spec == P()


def test_init_outside_and_inside_of_jit():
    on, params = on_data(AxisType.Auto)
    tx = zero(gt.adam(1e-3))
    want = state_shardings(tx, params)[0].mu
    assert jax.tree.map(lambda x: x.sharding, tx.init(params)[0].mu) == want
    with jax.set_mesh(on):
        assert jax.tree.map(lambda x: x.sharding, jax.jit(tx.init)(params)[0].mu) == want


def test_frozen_parameters_and_roles():
    on, params = on_data(AxisType.Auto)
    for tx in (
        zero(gt.masked(gt.adam(1e-3), {"w": True, "v": False, "b": True, "n": False})),
        gt.with_roles([("**", gt.Role("hidden"))], zero(gt.adam(1e-3))),
        zero(gt.with_roles([("**", gt.Role("hidden"))], gt.adam(1e-3))),
    ):
        with jax.set_mesh(on):
            state = init_sharded(tx, params)
            gradients = params | {"n": None}
            u, state = jax.jit(tx.update)(gradients, state, params)
        assert u["n"] is None
        mu = [x for x in jax.tree.leaves(state) if x.shape == SHAPES["w"]]
        assert mu and all(x.sharding.spec == P(None, "data") for x in mu)


def test_it_is_a_value():
    assert repr(zero(gt.adam(1e-3))) == "zero(adam(0.001))"
    assert zero(gt.adam(1e-3)) == zero(gt.adam(1e-3), "data") != zero(gt.adam(1e-3), "x")
    assert hash(zero(gt.adam(1e-3))) == hash(zero(gt.adam(1e-3)))


def test_errors():
    with pytest.raises(ValueError, match="zero: there is no mesh"):
        zero(gt.adam(1e-3)).init(numbers())
    with pytest.raises(ValueError, match="zero: the mesh has no axis 'rows', it has 'data', 'model'"):
        zero(gt.adam(1e-3), "rows").init(put(numbers(), mesh()))
    with pytest.raises(
        TypeError, match="zero: axis must be the name of an axis of the mesh, or a tuple of names, got 3"
    ):
        zero(gt.adam(1e-3), 3)


def test_errors_of_shard_map():
    on, params = on_data(AxisType.Auto)
    tx = zero(gt.adam(1e-3), scatter=True)
    state = tx.init(params)
    with pytest.raises(ValueError, match="zero: scatter=True is for the inside of a jax.shard_map over data"):
        tx.update(params, state, params)
    kept = jax.tree.map(lambda x: x.sharding.spec, state)

    def mapped(tx):
        return jax.shard_map(tx.update, mesh=on, in_specs=(P(), kept, P()), out_specs=(P(), kept))

    with pytest.raises(ValueError, match="by their types gradients are the same along data"):
        mapped(tx)(params, state, params)
    with pytest.raises(ValueError, match=r"zero: the spec at \['b'\] is .*: the mesh has no axis 'rows'"):
        mapped(zero(gt.adam(1e-3), specs=P("rows")))(params, state, params)
    with pytest.raises(ValueError, match=r"zero: the spec at \['b'\] .* 3 entries, but the shape is \(512,\)"):
        mapped(zero(gt.adam(1e-3), specs=P(None, None, None)))(params, state, params)
