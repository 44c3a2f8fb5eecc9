# SPDX-License-Identifier: Apache-2.0
"""Where the arrays of a state lie, for every factory, and that they are born there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx.core._placement import canonical
from gradtx.sharding import init_sharded, state_shardings
from support.meshes import SHAPES, SPECS, mesh, numbers, put, structs
from support.registry import FACTORIES, example

LARGE = 64 * 1024


def specs(tree):
    """The specs without Nones at their end."""
    return jax.tree.map(lambda x: canonical(getattr(x, "sharding", x).spec, 0, mesh()), tree)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.sharding.is_equivalent_to(getattr(y, "sharding", y), x.ndim)


@pytest.mark.parametrize("name", [n for n in FACTORIES if n != "zero"])  # of another mesh
def test_no_large_slot_of_any_factory_is_whole_on_each_device(name):
    params = structs(mesh(), {n: SPECS[n] for n in "wvb"})
    tx = example(name)
    shapes = jax.eval_shape(tx.init, {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in params.items()})
    found = state_shardings(tx, params)
    assert jax.tree.structure(found) == jax.tree.structure(shapes)
    for x, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(found), strict=True):
        assert sharding.mesh == mesh()
        parts = x.size // max(np.prod(sharding.shard_shape(x.shape), dtype=int), 1)
        assert parts > 1 or x.size * x.dtype.itemsize < LARGE


@pytest.mark.parametrize("make", [gt.adamw, optax.adamw])
def test_slots_like_parameters(make):
    found = specs(state_shardings(make(1e-3), structs(mesh())))
    adam = found[0]
    assert adam.mu == adam.nu == SPECS
    assert adam.count == P()


@pytest.mark.parametrize("make", [gt.adafactor, optax.adafactor])
def test_factors_keep_the_axis_that_they_have(make):
    found = specs(state_shardings(make(1e-3), structs(mesh())))[0]
    assert (found.v_row["w"], found.v_col["w"]) == (P("data"), P("model"))
    assert (found.v_row["v"], found.v_col["v"]) == (P("data"), P("model"))  # rows are of the smaller axis
    assert found.v["b"] == P("model")


def test_blocks_of_a_codec_and_their_scales():
    found = specs(state_shardings(gt.adamw8bit(1e-3, block=128), structs(mesh())))
    mu = found[0].inner_state.mu
    assert jax.tree.leaves(mu["w"]) == [P("data", "model"), P("data", "model")]
    assert jax.tree.leaves(mu["n"]) == [P()]


def test_slots_of_a_stack_keep_the_axis_of_the_stack_too():
    on = mesh()
    layers = {"a": P("data", None, "model"), "b": P(None, "data", "model")}
    params = {
        n: jax.ShapeDtypeStruct((8, 128, 256), jnp.float32, sharding=NamedSharding(on, s)) for n, s in layers.items()
    }
    tx = gt.with_roles([("**", gt.Role("hidden", stack=0))], gt.adafactor(1e-3))
    found = specs(state_shardings(tx, params))[0]
    assert found.v_row == {"a": P("data"), "b": P(None, "data")}
    assert found.v_col == {"a": P("data", "model"), "b": P(None, "model")}


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_init_keeps_the_shardings_of_a_stack(kind):
    """It runs under vmap, which knows of no sharding: the slots were whole on one device."""
    on = mesh(kind)
    spec = P("data", None, "model")
    params = {"a": jax.device_put(jnp.ones((8, 4, 6)), NamedSharding(on, spec))}
    tx = gt.with_roles([("**", gt.Role("hidden", stack=0))], gt.scale_by_adam())
    assert tx.init(params).mu["a"].sharding.spec == spec
    if kind == AxisType.Explicit:
        with jax.set_mesh(on):  # without it, even of jnp.zeros_like compiled by itself JAX forgets the sharding
            made = jax.jit(tx.init)(params)
        assert made.mu["a"].sharding.spec == spec


@pytest.mark.parametrize("lib", [gt, optax], ids=["gradtx", "optax"])
def test_where_types_say_nothing_place_and_shape_do(lib):
    found = specs(state_shardings(lib.lbfgs(memory_size=3), structs(mesh())))[0]
    assert found.params == SPECS
    assert found.diff_params_memory == {n: P(None, *spec) if spec != P() else P() for n, spec in SPECS.items()}
    flat = specs(state_shardings(lib.flatten(lib.adam(1e-3)), structs(mesh())))
    mu = next(x for x in jax.tree.leaves(flat) if x != P())
    assert mu == P("data")  # a vector of all parameters, over the first axis that they use


def test_plain_data_parallelism_does_not_become_zero():
    replicated = {n: P() for n in SHAPES}
    for tx in (gt.adamw(1e-3), gt.flatten(gt.adamw(1e-3)), gt.lbfgs()):
        assert set(jax.tree.leaves(specs(state_shardings(tx, structs(mesh(), replicated))))) == {P()}


@pytest.mark.parametrize(
    "tx",
    [gt.adamw(1e-3), gt.adafactor(1e-3), gt.lbfgs(), optax.adam(1e-3)],
    ids=["adamw", "adafactor", "lbfgs", "optax"],
)
def test_states_are_born_sharded(tx):
    on = mesh()
    params = put(numbers(), on)
    want = state_shardings(tx, params)
    made = init_sharded(tx, params)
    same(made, want)
    jax.tree.map(np.testing.assert_array_equal, made, tx.init(numbers()))
    same(init_sharded(tx, numbers(), mesh=on, specs=SPECS), want)


def test_states_of_shapes():
    on = mesh()
    same(init_sharded(gt.adamw(1e-3), structs(on)), state_shardings(gt.adamw(1e-3), structs(on)))
    with pytest.raises(ValueError, match="depends on the values of the parameters"):
        init_sharded(gt.schedule_free_adamw(1e-3), structs(on))


def test_meshes_without_devices_and_from_around():
    on = AbstractMesh((4, 2), ("data", "model"))
    shapes = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in SHAPES.items()}
    found = state_shardings(gt.adam(1e-3), shapes, mesh=on, specs=SPECS)[0].mu
    assert found["w"].mesh == on and specs(found) == SPECS
    with jax.set_mesh(mesh()):
        assert specs(state_shardings(gt.adam(1e-3), shapes, specs=P())[0].mu) == {n: P() for n in SHAPES}
        assert specs(state_shardings(gt.adam(1e-3), shapes, specs=SPECS)[0].mu) == SPECS
    with pytest.raises(ValueError, match="init_sharded: the mesh has no devices"):
        init_sharded(gt.adam(1e-3), shapes, mesh=on, specs=SPECS)


def test_parameters_whose_axes_are_explicit():
    on = mesh(AxisType.Explicit)
    params = put(numbers(), on)
    tx = gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(1e-3))
    same(init_sharded(tx, params), state_shardings(tx, params))
    inside = jax.jit(lambda p: (state_shardings(tx, p), p)[1])
    inside(params)  # the types of traced arrays say it too


SHAPE = {"w": jax.ShapeDtypeStruct((6, 4), jnp.float32)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"specs": P("data")}, "state_shardings: there is no mesh"),
        (
            {"mesh": True, "specs": P("rows")},
            r"the spec at \['w'\] is P\('rows',\): the mesh has no axis 'rows', it has 'data', 'model'",
        ),
        (
            {"mesh": True, "specs": P(None, None, "data")},
            r"the spec at \['w'\] .* 3 entries, but the shape is \(6, 4\)",
        ),
        (
            {"mesh": True, "specs": P("data")},
            r"splits axis 0 into 4, but the shape is \(6, 4\): 6 is not divisible by 4",
        ),
        ({"mesh": True, "specs": {"v": P()}}, "specs has nothing for"),
        ({"mesh": True, "specs": "data"}, "specs"),
    ],
)
def test_one_clear_sentence_each(arguments, message):
    arguments = {n: mesh() if x is True else x for n, x in arguments.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        state_shardings(gt.adam(1e-3), SHAPE, **arguments)


def test_two_meshes():
    params = structs(mesh())
    params["w"] = structs(mesh(data=8), {"w": P("data")})["w"]
    with pytest.raises(ValueError, match=r"two meshes, \(data=4, model=2\) from device 0 at .* and \(data=8\) from"):
        state_shardings(gt.adam(1e-3), params)
    with pytest.raises(ValueError, match="two meshes, .* at mesh= and"):
        state_shardings(gt.adam(1e-3), structs(mesh()), mesh=mesh(data=8))


def test_a_transformation_is_needed():
    with pytest.raises(TypeError, match="state_shardings: tx must be a transformation, got the factory adam"):
        state_shardings(gt.adam, structs(mesh()))
