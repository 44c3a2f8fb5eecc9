# SPDX-License-Identifier: Apache-2.0
"""Updates leave `update` in the promoted dtype of gradient and parameter, and are float32 until then."""

import operator
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.core._transformation import as_inner

F16, BF16, F32, F64 = jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64
PARAMS = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.asarray([0.3, -0.7, 1.1])}


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def dtypes(tree):
    return {x.dtype for x in jax.tree.leaves(tree)}


def bits(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def one(tx, g, p, **extra):
    return tx.update(g, tx.init(g if p is None else p), p, **extra)[0]


def traced(tx, g, p, **extra):
    return jax.eval_shape(lambda g, p: one(tx, g, p, **extra), g, p)


STAGES = [gt.clip_by_global_norm(1.0), gt.scale_by_adam(), gt.add_decayed_weights(0.1), gt.scale_by_lr(1e-2)]
WRAPPED = {
    "chain": gt.chain(*STAGES),
    "named_chain": gt.named_chain(*((str(i), stage) for i, stage in enumerate(STAGES))),
    "nested": gt.chain(gt.chain(*STAGES[:2]), gt.chain(*STAGES[2:])),
    "schedule": gt.chain(*STAGES[:3], gt.scale_by_lr(gt.linear_schedule(1e-2, 0.0, 7))),
    "masked": gt.masked(gt.chain(*STAGES), {"w": True, "b": True}),
    "partition": gt.partition({"all": gt.chain(*STAGES)}, lambda params: jax.tree.map(lambda p: "all", params)),
    "with_roles": gt.with_roles([("**", gt.Role("hidden"))], gt.chain(*STAGES)),
    "groups": gt.groups([("b", {"weight_decay": 0.1})], gt.chain(*STAGES)),
    "MultiSteps": gt.MultiSteps(gt.chain(*STAGES), 1),
    "apply_if_finite": gt.apply_if_finite(gt.chain(*STAGES), 3),
    "guard": gt.guard(gt.chain(*STAGES)),
    "stored": gt.stored(gt.chain(*STAGES), {"mu": gt.precision.float32()}),
    "inject_hyperparams": gt.inject_hyperparams(lambda factor: gt.chain(*STAGES, gt.scale(factor)))(1.0),
    "record_metrics": gt.record_metrics(gt.chain(*STAGES), ("update_norm",)),
    "conditionally_transform": gt.conditionally_transform(gt.chain(*STAGES), lambda step: step < 5),
    "flatten": gt.flatten(gt.chain(*STAGES)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_inside_of_chains_and_wrappers_nothing_is_rounded(name):
    """Two steps are those of float32, of which only the result is cast."""
    tx, p = WRAPPED[name], cast(PARAMS, BF16)
    wide_p = cast(p, F32)
    state, wide_state = tx.init(p), tx.init(wide_p)
    for scale in (0.3, -1.7):
        g = jax.tree.map(lambda p, s=scale: (s * jnp.cos(3 * p.astype(F32))).astype(BF16), p)
        low, state = tx.update(g, state, p)
        want, wide_state = tx.update(cast(g, F32), wide_state, wide_p)
        assert dtypes(low) == {jnp.dtype(BF16)}
        jax.tree.map(np.testing.assert_array_equal, bits(low), bits(cast(want, BF16)))


def test_a_step_that_is_left_out_has_the_same_dtype():
    p = cast(PARAMS, BF16)
    nan = jax.tree.map(lambda x: x * jnp.asarray(jnp.nan, x.dtype), p)
    for tx in (gt.apply_if_finite(gt.adam(1e-3), 9), gt.MultiSteps(gt.adam(1e-3), 2), gt.guard(gt.adam(1e-3))):
        u = one(tx, nan, p)
        assert dtypes(u) == {jnp.dtype(BF16)} and all(not np.any(x) for x in jax.tree.leaves(bits(u)))
    tx = gt.conditionally_mask(gt.adam(1e-3), lambda step: step > 0)
    assert dtypes(one(tx, p, p)) == {jnp.dtype(BF16)}


def test_a_choice_between_updates_and_gradients():
    p = cast(PARAMS, BF16)
    tx = gt.adamw(1e-3)
    state = tx.init(p)
    u = jax.jit(lambda ok: jax.lax.cond(ok, lambda: tx.update(p, state, p)[0], lambda: p))(True)
    assert dtypes(u) == {jnp.dtype(BF16)}


@pytest.mark.parametrize("add", ["operator", "equinox", "gradtx"])
def test_a_bfloat16_model_stays_bfloat16(add):
    import equinox

    adders = {
        "operator": lambda p, u: jax.tree.map(operator.add, p, u),
        "equinox": equinox.apply_updates,
        "gradtx": gt.apply_updates,
    }
    tx, p = gt.adamw(0.1), cast(PARAMS, BF16)

    @jax.jit
    def train(p):
        def step(carry, _):
            p, state = carry
            g = jax.grad(lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p)))(p)
            u, state = tx.update(g, state, p)
            return (adders[add](p, u), state), None

        return jax.lax.scan(step, (p, tx.init(p)), length=60)[0][0]

    end = train(p)
    assert dtypes(end) == {jnp.dtype(BF16)} and max(np.abs(x).max() for x in jax.tree.leaves(bits(end))) < 0.1


ROUNDING = {
    "keep_master": gt.keep_master(),
    "compensate": gt.compensate(),
    "error_bits": gt.error_bits(16),
    "round_stochastically": gt.round_stochastically(0),
}
AROUND = {
    "nested": lambda tx: gt.chain(gt.clip(1.0), gt.named_chain(("a", gt.adam(1e-4)), ("b", tx))),
    "MultiSteps": lambda tx: gt.MultiSteps(gt.chain(gt.adam(1e-4), tx), 1),
    "partition": lambda tx: gt.partition({"a": gt.chain(gt.adam(1e-4), tx)}, lambda p: jax.tree.map(lambda _: "a", p)),
    "with_roles": lambda tx: gt.with_roles([("**", gt.Role("hidden"))], gt.chain(gt.adam(1e-4), tx)),
    "with_master_params": lambda tx: gt.with_master_params(gt.adam(1e-4), tx),
    "repack_state": lambda tx: gt.repack_state(gt.chain(gt.adam(1e-4), tx), list, tuple),
    "repack_state of values": lambda tx: gt.repack_state(
        gt.chain(gt.adam(1e-4), tx), lambda s: (s[0], tuple(s[1])), lambda s: (s[0], type(tx.init(PARAMS))(*s[1]))
    ),
    "optax inside": lambda tx: gt.apply_if_finite(optax.chain(optax.adam(1e-4), tx), 3),
    "inject_hyperparams": lambda tx: gt.inject_hyperparams(lambda rate: gt.chain(gt.adam(rate), tx))(1e-4),
}


@pytest.mark.parametrize("stage", ROUNDING)
def test_behind_a_rounding_stage_updates_lead_to_what_the_parameter_can_be(stage):
    p = cast(PARAMS, BF16)
    u = one(gt.chain(gt.adam(1e-2), ROUNDING[stage]), p, p)
    assert dtypes(u) == {jnp.dtype(F32)}
    landed = jax.tree.map(lambda p, u: p.astype(F32) + u, p, u)
    jax.tree.map(np.testing.assert_array_equal, bits(landed), bits(cast(landed, BF16)))


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.usefixtures("standard_promotion")
def test_a_rounding_stage_anywhere_inside_hands_out_float32(around):
    p = cast(PARAMS, BF16)
    for stage in ("keep_master", "compensate"):
        assert dtypes(traced(AROUND[around](ROUNDING[stage]), p, p)) == {jnp.dtype(F32)}


def test_without_parameters_the_dtype_is_the_gradients():
    for dtype in (F16, BF16, F32):
        assert dtypes(one(gt.adam(1e-3), cast(PARAMS, dtype), None)) == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("g", "p", "want"),
    [(F64, F32, F64), (F32, F64, F64), (F32, F32, F32), (F64, BF16, F64), (BF16, BF16, BF16), (F16, BF16, F32)],
)
@pytest.mark.usefixtures("standard_promotion")
def test_float64(g, p, want):
    with jax.enable_x64(True):
        for tx in (gt.adamw(1e-3), gt.sgd(np.float64(1e-3)), gt.sgd(gt.linear_schedule(0.1, 0.0, 7))):
            assert dtypes(traced(tx, cast(PARAMS, g), cast(PARAMS, p))) == {jnp.dtype(want)}


@pytest.mark.usefixtures("standard_promotion")
def test_complex_numbers():
    g = jnp.asarray([1 + 2j, 3j], jnp.complex64)
    assert traced(gt.adam(1e-3), g, g).dtype == jnp.complex64
    with jax.enable_x64(True):
        assert traced(gt.adam(np.float64(1e-3)), g, g).dtype == jnp.complex64


def test_leaves_without_a_value_and_whole_numbers():
    p = {"a": jnp.ones(2, BF16), "n": jnp.arange(2), "z": jnp.ones(3, BF16)}
    g = {"a": jnp.ones(2, BF16), "n": np.zeros(2, jax.dtypes.float0), "z": None}
    tx = gt.chain(gt.trace(0.9), gt.scale_by_lr(0.1))
    u = tx.update(g, tx.init(p), p)[0]
    assert u["a"].dtype == BF16 and u["z"] is None and u["n"].dtype == jax.dtypes.float0
    frozen = gt.groups([("z", "frozen")], gt.adam(1e-3))
    u = one(frozen, {"a": p["a"], "z": p["z"]}, {"a": p["a"], "z": p["z"]})
    assert u["a"].dtype == BF16 and u["z"] is None


def test_gradients_of_whole_numbers_keep_their_fractions():
    u = one(gt.scale(0.5), jnp.arange(3), None)
    np.testing.assert_array_equal(u, [0.0, 0.5, 1.0])


def test_gradients_of_each_example():
    p = jnp.ones(3, BF16)
    tx = gt.chain(gt.aggregating.average_per_element_updates(), gt.sgd(0.1))
    assert tx.update(jnp.ones((4, 3), BF16), tx.init(p), p)[0].dtype == BF16


def test_the_pair_of_lookahead():
    p = gt.states.LookaheadParams.init_synced(cast(PARAMS, BF16))
    tx = gt.lookahead(gt.sgd(0.1), 2, 0.5)
    u = tx.update(p.fast, tx.init(p), p)[0]
    assert type(u) is type(p) and dtypes(u) == {jnp.dtype(BF16)}


def test_a_pair_of_functions_runs_as_it_is():
    def update(updates, state, params=None):
        return jax.tree.map(lambda g: g.astype(F32), updates), state

    tx, p = gt.GradientTransformation(lambda params: (), update), cast(PARAMS, BF16)
    assert tx.update is update and dtypes(one(tx, p, p)) == {jnp.dtype(F32)}
    assert dtypes(one(gt.chain(tx), p, p)) == {jnp.dtype(BF16)}


def test_update_is_the_same_function_at_every_access():
    for tx in (gt.adam(1e-3), gt.per_parameter(None, lambda g, slots, p, t: (2 * g, slots)), gt.scale_by_adam()):
        init, update = tx
        assert tx.update is update is tx[1] and tx.init is init and update.__name__ == "update"
        assert dtypes(one(tx, cast(PARAMS, BF16), None)) == {jnp.dtype(BF16)}
    again = pickle.loads(pickle.dumps(gt.adam(1e-3)))
    assert dtypes(one(again, cast(PARAMS, BF16), None)) == {jnp.dtype(BF16)}


def test_compiled_programs_in_float32_have_no_casts():
    tx = gt.adamw(1e-3)
    found, inner = (jax.make_jaxpr(f)(PARAMS, tx.init(PARAMS), PARAMS) for f in (tx.update, as_inner("", tx).update))
    assert str(found) == str(inner)


def test_small_floats_that_have_no_common_dtype_stay_as_they_come():
    p = jnp.ones(2, jnp.float8_e4m3fn)
    assert one(gt.sgd(0.1), jnp.ones(2, BF16), p).dtype == F32
