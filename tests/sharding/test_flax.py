# SPDX-License-Identifier: Apache-2.0
"""The names of mesh axes that Flax keeps with parameters are read, and where slots lie is written for its optimizer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx.sharding import set_optimizer_sharding, state_shardings, zero
from support.meshes import mesh


class Model(nnx.Module):
    def __init__(self, rngs):
        split = nnx.with_partitioning(nnx.initializers.normal(), (None, "model"))
        self.up = nnx.Linear(16, 32, kernel_init=split, rngs=rngs)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("recipe", [gt.adam, gt.adamw8bit])
def test_an_optimizer_of_nnx_holds_a_state_that_is_spread(kind, recipe):
    with jax.set_mesh(mesh(kind)):
        model = Model(nnx.Rngs(0))
        variables = nnx.state(model, nnx.Param)
        tx = zero(recipe(1e-3), specs=nnx.get_partition_spec(variables))
        set_optimizer_sharding(tx, variables)
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        step = nnx.jit(lambda model, optimizer: optimizer.update(model, nnx.state(model, nnx.Param)))
        for _ in range(2):
            moments = jax.tree.leaves(optimizer.opt_state[0], is_leaf=lambda x: isinstance(x, nnx.Variable))
            found = {x.shape: x.sharding.spec for x in jax.tree.leaves(moments) if x.ndim}
            assert found == {(16, 32): P("data", "model"), (32,): P("data")}
            step(model, optimizer)
    assert model.up.kernel[...].sharding.spec == P(None, "model")


def test_variables_are_needed():
    with pytest.raises(TypeError, match="variables must hold variables of nnx, got ArrayImpl at"):
        set_optimizer_sharding(gt.adam(1e-3), {"w": jnp.ones(8)}, mesh=mesh())


@pytest.mark.parametrize(("name", "spec"), [("model", P(None, "model")), ("mlp", P())])
def test_names_in_boxes_are_specs_if_they_are_those_of_mesh_axes(name, spec):
    init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, name))
    boxed = jax.eval_shape(nn.Dense(8, kernel_init=init).init, jax.random.key(0), jnp.ones((1, 64)))["params"]
    found = state_shardings(gt.adam(1e-3), boxed, mesh=mesh())[0].mu
    assert jax.tree.map(lambda x: x.spec, nn.unbox(found)) == {"kernel": spec, "bias": P()}
