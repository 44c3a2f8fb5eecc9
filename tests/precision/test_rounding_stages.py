# SPDX-License-Identifier: Apache-2.0
"""The rounding stages against their formulas in NumPy, and in every place where a stage may stand."""

import pickle

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from gradtx import describe
from gradtx.testing import check_contract

BF16 = ml_dtypes.bfloat16
STAGES = {
    "round_stochastically": gradtx.round_stochastically(0),
    "compensate": gradtx.compensate(),
    "error_bits_8": gradtx.error_bits(8),
    "error_bits_16": gradtx.error_bits(16),
    "keep_master": gradtx.keep_master(),
}
EXACT = ("error_bits_16", "keep_master")
STEPS = 200

each_stage = pytest.mark.parametrize("name", STAGES)
each_dtype = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])


def updates_of(step: int, n: int = 500) -> np.ndarray:
    """Of sizes from far below an ulp of a parameter of size 1 to far above."""
    random = np.random.default_rng(step)
    return (random.normal(size=n) * 10.0 ** random.uniform(-7, -1, n)).astype(np.float32)


def start(dtype: object, n: int = 500) -> jax.Array:
    return jnp.asarray(np.random.default_rng(99).normal(size=n), dtype)


def followed(tx: object, p: jax.Array, steps: int = STEPS) -> tuple:
    """The parameters and the state after each step, the updates given to the stage itself."""
    state, found = tx.init(p), []
    for i in range(steps):
        u, state = tx.update(jnp.asarray(updates_of(i)), state, p)
        assert u.dtype == jnp.float32
        p = gradtx.apply_updates(p, u)
        found.append((p, state))
    return tuple(found)


def wide(p: object) -> np.ndarray:
    return np.asarray(p).astype(np.float32)


# The formulas.


@pytest.mark.slow
@each_dtype
def test_keep_master_is_float32(dtype: object):
    m = wide(start(dtype))
    for i, (p, state) in enumerate(followed(STAGES["keep_master"], start(dtype))):
        m = m + updates_of(i)
        np.testing.assert_array_equal(state.master, m)
        np.testing.assert_array_equal(p, m.astype(dtype))
        np.testing.assert_array_equal(gradtx.master_params(state, p), m)


def test_16_error_bits_are_float32():
    m = wide(start(jnp.bfloat16))
    for i, (p, state) in enumerate(followed(STAGES["error_bits_16"], start(jnp.bfloat16))):
        m = m + updates_of(i)
        np.testing.assert_array_equal(gradtx.master_params(state, p), m)
        assert (np.abs(wide(p) - m) <= np.abs(wide(m.astype(BF16)) - m)).all(), "it is the nearest"
        assert state.error.dtype == jnp.int16


def test_16_error_bits_of_float16_are_float32_above_its_smallest_numbers():
    m = wide(start(jnp.float16))
    for i, (p, state) in enumerate(followed(STAGES["error_bits_16"], start(jnp.float16))):
        m = m + updates_of(i)
        found = np.asarray(gradtx.master_params(state, p))
        np.testing.assert_allclose(found, m, rtol=0, atol=2.0**-40)
        np.testing.assert_array_equal(found[np.abs(m) >= 2.0**-16], m[np.abs(m) >= 2.0**-16])
        m = found


@pytest.mark.slow
@each_dtype
def test_8_error_bits(dtype: object):
    p = np.asarray(start(dtype))
    c = np.zeros(p.shape, np.int8)

    def ulp(q: np.ndarray) -> np.ndarray:
        info = ml_dtypes.finfo(dtype)
        return 2.0 ** (np.maximum(np.frexp(wide(q))[1] - 1, info.minexp) - info.nmant)

    for i, (found, state) in enumerate(followed(STAGES["error_bits_8"], start(dtype))):
        w = (wide(p) + np.float32(c * ulp(p)) / np.float32(254)) + updates_of(i)
        p = w.astype(dtype)
        c = np.clip(np.round((w.astype(np.float64) - wide(p)) / ulp(p) * 254), -127, 127).astype(np.int8)
        np.testing.assert_array_equal(found, p)
        np.testing.assert_array_equal(state.error, c)
        error = np.abs(np.asarray(gradtx.master_params(state, found), np.float64) - w)
        assert (error <= ulp(p) / 508 * (1 + 1e-6) + 2e-8).all()


@each_dtype
def test_compensate_is_the_sum_of_kahan(dtype: object):
    p = np.asarray(start(dtype))
    c = np.zeros_like(p)
    for i, (found, state) in enumerate(followed(STAGES["compensate"], start(dtype))):
        c_wide = wide(c) + updates_of(i)
        old, p = p, (wide(p) + c_wide).astype(dtype)
        c = (c_wide + (wide(old) - wide(p))).astype(dtype)
        np.testing.assert_array_equal(found, p)
        np.testing.assert_array_equal(state.residual, c)
        np.testing.assert_array_equal(gradtx.master_params(state, found), wide(p) + wide(c))


@each_dtype
def test_stochastic_rounding_is_unbiased(dtype: object):
    """Within 3 standard errors, over a million draws for each of a few numbers."""
    n, tx = 1_000_000, STAGES["round_stochastically"]
    for x, u in ((1.0, 1e-4), (-1.0, 1e-3), (0.3, -2e-5), (1e-3, 3e-8), (0.0, 1e-7)):
        p = jnp.full(n, x, dtype)
        exact = np.float64(np.float32(np.float32(p[0]) + np.float32(u)))
        got, _ = tx.update(jnp.full(n, u, jnp.float32), tx.init(p), p)
        q = np.asarray(gradtx.apply_updates(p, got), np.float64)
        values = np.unique(q)
        assert len(values) <= 2 and values[0] <= exact <= values[-1]
        assert abs(q.mean() - exact) <= 3 * q.std() / np.sqrt(n)


def test_random_numbers_differ_between_steps_parameters_places_and_seeds():
    p = {"a": jnp.ones(64, jnp.bfloat16), "b": jnp.ones(64, jnp.bfloat16)}
    g = jax.tree.map(lambda p: jnp.full(64, 2**-9, jnp.float32), p)

    def two_steps(seed: object) -> list:
        tx = gradtx.round_stochastically(seed)
        first, state = tx.update(g, tx.init(p), p)
        second, _ = tx.update(g, state, p)
        return [np.asarray(u) for u in (first["a"], first["b"], second["a"])]

    found = [*two_steps(0), *two_steps(1)]
    assert len({x.tobytes() for x in found}) == 6
    assert all(0 < (x != 0).sum() < 64 for x in found)
    for same in (np.int32(1), jax.random.key(1), jax.random.PRNGKey(1)):
        assert [x.tobytes() for x in two_steps(same)] == [x.tobytes() for x in found[3:]]


def test_random_numbers_of_a_parameter_do_not_depend_on_the_others():
    tx, g = STAGES["round_stochastically"], jnp.full(64, 2**-9, jnp.float32)
    p = jnp.ones(64, jnp.bfloat16)
    alone, _ = tx.update({"b": g}, tx.init({"b": p}), {"b": p})
    both, _ = tx.update({"a": g, "b": g}, tx.init({"a": p, "b": p}), {"a": p, "b": p})
    np.testing.assert_array_equal(alone["b"], both["b"])


# A run.


def trained(tx: object, params: object, steps: int = 1000, state: object = None) -> tuple:
    """With a constant gradient of 1."""

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        gradients = jax.tree.map(lambda p: jnp.ones_like(p, jnp.float32), params)
        updates, state = tx.update(gradients, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params) if state is None else state), length=steps)[0]


@pytest.mark.slow
@each_dtype
@each_stage
def test_a_thousand_small_steps(name: str, dtype: object):
    """1,000 steps of 1e-4 lead from 1 to 0.9."""
    tx = gradtx.chain(gradtx.adam(1e-4), STAGES[name])
    p, state = jax.jit(lambda p: trained(tx, p))(jnp.ones(1000, dtype))
    assert abs(np.asarray(p, np.float64).mean() - 0.9) < 0.02 * 0.9
    assert abs(np.asarray(gradtx.master_params(state, p), np.float64).mean() - 0.9) < (1e-4 if name in EXACT else 0.01)


@pytest.mark.parametrize("rounding", EXACT)
@pytest.mark.parametrize("make", [gradtx.adamw, gradtx.lamb, gradtx.lion], ids=lambda f: f.__name__)
def test_optimizers_of_the_master_are_those_of_float32(make: object, rounding: str):
    """Bit for bit, with weight decay and norms of the parameters in float32."""
    tx = gradtx.with_master_params(make(1e-3, weight_decay=0.1), STAGES[rounding])
    plain = make(1e-3, weight_decay=0.1)
    p, m = start(jnp.bfloat16), jnp.asarray(wide(start(jnp.bfloat16)))
    state, plain_state = tx.init(p), plain.init(m)
    for i in range(50):
        g = jnp.asarray(updates_of(i))
        u, state = tx.update(g, state, p)
        p = gradtx.apply_updates(p, u)
        u, plain_state = plain.update(g, plain_state, m)
        m = gradtx.apply_updates(m, u)
        np.testing.assert_array_equal(gradtx.master_params(state, p), m)
        assert (np.abs(wide(p) - m) <= np.abs(wide(np.asarray(m).astype(BF16)) - m)).all()


@each_stage
def test_float32_parameters_pass(name: str):
    params = {"f": jnp.ones(3, jnp.float32), "c": jnp.ones(3, jnp.complex64), "i": jnp.arange(3), "n": None}
    updates = {"f": jnp.full(3, 1e-9), "c": jnp.full(3, 1e-9j, jnp.complex64), "i": None, "n": None}
    tx = STAGES[name]
    state = tx.init(params)
    found, new_state = tx.update(updates, state, params)
    assert found["f"] is updates["f"] and found["c"] is updates["c"] and found["i"] is None
    assert all(x.shape in ((), (2,)) for x in jax.tree.leaves(new_state)), "nothing is kept for them"
    assert gradtx.master_params(new_state, params)["f"] is params["f"]


@pytest.mark.parametrize(
    ("name", "each"),
    [("round_stochastically", 0), ("error_bits_8", 1), ("error_bits_16", 2), ("compensate", 2), ("keep_master", 4)],
)
def test_bytes(name: str, each: int):
    params = {"w": jax.ShapeDtypeStruct((64, 64), jnp.bfloat16), "norm": jax.ShapeDtypeStruct((64,), jnp.float32)}
    found = [s for s in describe(STAGES[name], params).slots if s.parameter]
    assert {(s.parameter, s.bytes) for s in found} == ({("w", each * 64 * 64)} if each else set())


# Where a stage may stand.


@pytest.mark.slow
@each_dtype
@each_stage
def test_contract(name: str, dtype: object):
    params = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3).astype(dtype), "b": jnp.full(3, 0.5, jnp.float32)}
    # Products with powers of two are exact: the bits below are compared as whole numbers, with and without jit.
    check_contract(gradtx.chain(gradtx.sgd(0.125), STAGES[name]), params)
    decayed = gradtx.chain(gradtx.add_decayed_weights(0.25), gradtx.sgd(0.125))
    check_contract(gradtx.with_master_params(decayed, STAGES[name]), params)


def bits_of(tree: object) -> list:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def small(dtype: object = jnp.bfloat16) -> dict:
    random = np.random.default_rng(3)
    return {n: jnp.asarray(random.normal(size=(4, 8)), dtype) for n in "ab"}


@pytest.mark.slow
@each_stage
def test_inside_of_wrappers_it_does_the_same(name: str):
    params = small()
    alone = trained(gradtx.chain(gradtx.adam(1e-3), STAGES[name]), params, 10)[0]
    inner = gradtx.chain(gradtx.adam(1e-3), STAGES[name])
    roles = (("**", gradtx.Role("hidden", stack=(0,))),)
    labels = {"a": "one", "b": "two"}
    for tx, steps in (
        (gradtx.masked(inner, {"a": True, "b": True}), 10),
        (gradtx.partition({"one": inner, "two": inner}, labels), 10),
        (gradtx.with_roles(roles, inner), 10),
        (gradtx.MultiSteps(inner, 2), 20),
        (gradtx.record_metrics(inner), 10),
        (gradtx.guard(inner, gradtx.skipping.norm_spike(4, warmup=2)), 10),
        (gradtx.groups([("b", {"learning_rate": gradtx.times(1.0)})], inner), 10),
    ):
        found, state = trained(tx, params, steps)
        assert bits_of(found) == bits_of(alone), tx
        views = gradtx.master_params(state, found)
        assert jax.tree.map(jnp.shape, views) == jax.tree.map(jnp.shape, params)
        if name in EXACT:
            assert not np.array_equal(views["b"], wide(found["b"]))


@each_stage
def test_a_masked_parameter_has_no_bits(name: str):
    tx = gradtx.masked(STAGES[name], {"a": True, "b": False})
    params = small()
    state = tx.init(params)
    slots = [s for s in describe(tx, params).slots if s.parameter]
    assert {s.parameter for s in slots} <= {"a"}
    assert gradtx.master_params(state, params)["b"] is params["b"]


@each_stage
def test_a_gradient_of_none_changes_nothing(name: str):
    tx, params = STAGES[name], small()
    gradients = {"a": jnp.full((4, 8), 1e-3), "b": None}
    _, state = tx.update({"a": gradients["a"], "b": gradients["a"]}, tx.init(params), params)
    updates, new = tx.update(gradients, state, params)
    assert updates["b"] is None
    for old, kept in zip(jax.tree.leaves(state[-1]), jax.tree.leaves(new[-1]), strict=True):
        assert old.shape == kept.shape
    if name != "round_stochastically":
        np.testing.assert_array_equal(state[0]["b"], new[0]["b"])


@pytest.mark.slow
@each_stage
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_eight_devices_do_what_one_does(name: str, axis_type: AxisType):
    tx = gradtx.chain(gradtx.sgd(1e-3), STAGES[name])
    params = {n: jnp.tile(p, (2, 2)) for n, p in small().items()}
    gradients = jax.tree.map(lambda p: jnp.sin(wide(p) * 100), params)

    @jax.jit
    def step(params: dict, state: tuple, gradients: dict) -> tuple:
        updates, state = tx.update(gradients, state, params)
        return gradtx.apply_updates(params, updates), state

    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(axis_type,) * 2)
    runs = []
    for place in (lambda x: x, lambda x: jax.device_put(x, NamedSharding(mesh, PartitionSpec("x", "y")))):
        p, g = jax.tree.map(place, (params, gradients))
        state = tx.init(p)
        for _ in range(5):
            p, state = step(p, state, g)
        runs.append((p, state))
    assert len(runs[1][0]["a"].sharding.device_set) == 8
    assert all(x.sharding.spec == PartitionSpec("x", "y") for x in jax.tree.leaves(runs[1]) if x.ndim == 2)
    assert bits_of(runs[0]) == bits_of(runs[1])


@pytest.mark.slow
@each_stage
def test_a_restored_run_goes_on_as_if_it_had_not_stopped(name: str, tmp_path: object):
    tx, params = gradtx.chain(gradtx.adam(1e-3), STAGES[name]), small()
    half = trained(tx, params, 7)
    import orbax.checkpoint

    with orbax.checkpoint.StandardCheckpointer() as saver:
        saver.save(tmp_path / "run", half)
        saver.wait_until_finished()
        restored = saver.restore(tmp_path / "run", jax.tree.map(jnp.zeros_like, half))
    for again in (restored, pickle.loads(pickle.dumps(half))):
        end = trained(tx, again[0], 8, again[1])
        assert bits_of(end) == bits_of(trained(tx, params, 15))


@each_stage
def test_state_and_parameters_can_be_donated(name: str):
    tx, params = gradtx.chain(gradtx.sgd(1e-3), STAGES[name]), small()
    step = jax.jit(
        lambda p, s: tx.update(jax.tree.map(lambda x: jnp.ones_like(x, jnp.float32), p), s, p), donate_argnums=1
    )
    state, again = tx.init(params), tx.init(params)
    for _ in range(3):
        _, state = step(params, state)
        _, again = tx.update(jax.tree.map(lambda x: jnp.ones_like(x, jnp.float32), params), again, params)
    assert bits_of(state) == bits_of(again)


# The ends of the range, and errors.


@each_stage
def test_float16_ends_at_its_largest_number(name: str):
    tx, p = STAGES[name], jnp.asarray([65000.0, -65000.0], jnp.float16)
    state = tx.init(p)
    for _ in range(3):
        u, state = tx.update(jnp.asarray([1e5, -1e5], jnp.float32), state, p)
        p = gradtx.apply_updates(p, u)
        np.testing.assert_array_equal(p, [65504.0, -65504.0])
    if name != "keep_master":  # whose master is where float32 would be
        u, state = tx.update(jnp.asarray([-1e3, 1e3], jnp.float32), state, p)
        assert (np.abs(wide(gradtx.apply_updates(p, u))) < 65504).all()


@each_stage
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_does_not_spoil_what_is_kept(name: str, bad: float):
    tx, p = STAGES[name], jnp.ones(2, jnp.bfloat16)
    u, state = tx.update(jnp.asarray([bad, 0.0], jnp.float32), tx.init(p), p)
    spoiled = wide(gradtx.apply_updates(p, u))
    assert not np.isfinite(spoiled[0]) and spoiled[1] == 1, "it is as without the stage"
    u, _ = tx.update(jnp.full(2, -0.25, jnp.float32), state, p)  # the parameters are taken from before
    np.testing.assert_array_equal(wide(gradtx.apply_updates(p, u)), 0.75)


def test_keep_master_takes_over_what_others_set():
    tx, p = gradtx.keep_master(), jnp.ones(2, jnp.bfloat16)
    _, state = tx.update(jnp.full(2, 1e-3, jnp.float32), tx.init(p), p)
    other = jnp.asarray([1.0, 3.0], jnp.bfloat16)
    np.testing.assert_array_equal(gradtx.master_params(state, other), np.float32([1.001, 3.0]))
    _, state = tx.update(jnp.full(2, 1e-3, jnp.float32), state, other)
    np.testing.assert_array_equal(state.master, np.float32([1.001, 3.0]) + np.float32(1e-3))


@each_stage
def test_errors(name: str):
    tx, p = STAGES[name], {"w": {"k": jnp.ones(2, jnp.bfloat16)}}
    factory = tx.factory.name
    state = tx.init(p)
    g = jax.tree.map(lambda x: jnp.ones(2, jnp.float32), p)
    with pytest.raises(ValueError, match=f"{factory}: update needs the parameters"):
        tx.update(g, state)
    with pytest.raises(TypeError, match=f"{factory}: state must be the"):
        tx.update(g, p, state)
    with pytest.raises(ValueError, match=rf"{factory}: .*'w'\]\['k'\] is of float8_e4m3fn; .* bfloat16 or float16"):
        tx.init({"w": {"k": jnp.ones(2, jnp.float8_e4m3fn)}})
    with pytest.raises(ValueError, match=f"{factory}: the gradient at .*k.* has shape"):
        tx.update({"w": {"k": jnp.ones(3)}}, state, p)
    if name != "round_stochastically":
        of_float32 = tx.init(g)
        with pytest.raises(ValueError, match=f"{factory}: the state holds nothing for w/k"):
            tx.update(g, of_float32, p)


def test_errors_of_arguments():
    with pytest.raises(ValueError, match="error_bits: bits must be 8 or 16, got 12"):
        gradtx.error_bits(12)
    with pytest.raises(TypeError, match="round_stochastically: seed must be a key"):
        gradtx.round_stochastically("x")
    with pytest.raises(ValueError, match="master_params: the state is that of other parameters"):
        tx = gradtx.flatten(gradtx.keep_master())
        gradtx.master_params(tx.init(small()), small())
