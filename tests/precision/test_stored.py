# SPDX-License-Identifier: Apache-2.0
"""Storing the slots of any transformation: which are stored how, and that nothing else changes."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import precision, stored
from gradtx.core._payloads import payloads
from gradtx.precision import bfloat16, companded8, float8, float32, int4, int8
from gradtx.precision._blockwise import Blockwise
from gradtx.testing import check_contract
from support import registry

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 48).reshape(6, 8), "b": jnp.full(3, 0.5, jnp.float32)}
EIGHT = {"mu": int8(4, stochastic=False), "nu": int8(4, signed=False)}
CODECS = [
    float32(),
    bfloat16(),
    bfloat16(stochastic=True),
    int8(4),
    int8(4, stochastic=False),
    companded8(4),
    companded8(4, stochastic=False),
    float8("e4m3", 4),
    float8("e5m2", 4),
    int4(4),
]


def gradients(step: int) -> dict:
    return jax.tree.map(lambda p: jnp.sin(p * (step + 1)), PARAMS)


def run(tx: Any, steps: int, state: Any = None, params: Any = PARAMS, start: int = 0) -> tuple:
    update = jax.jit(tx.update)
    state = tx.init(params) if state is None else state
    for step in range(start, start + steps):
        updates, state = update(gradients(step), state, params)
        params = gradtx.apply_updates(params, updates)
    return params, state


@pytest.mark.slow
def test_a_slot_is_what_its_codec_makes_of_it():
    tx = stored(gradtx.scale_by_adam(), EIGHT, min_size=16)
    plain, state = gradtx.scale_by_adam(), tx.init(PARAMS)
    updates, state = tx.update(gradients(0), state, PARAMS)
    expected, moments = plain.update(gradients(0), plain.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)  # the arithmetic is that of float32
    kept = state.inner_state
    assert type(kept) is type(moments) and kept.mu["b"].dtype == jnp.float32  # too small to be stored
    for name in ("mu", "nu"):
        payload, slot = getattr(kept, name)["w"], getattr(moments, name)["w"]
        jax.tree.map(np.testing.assert_array_equal, tuple(payload), tuple(EIGHT[name].encode(slot)))
        np.testing.assert_array_equal(payload.decoded((6, 8)), EIGHT[name].decode(payload, (6, 8)))


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_every_codec_under_scan_and_as_a_value(codec: precision.Codec):
    tx = stored(gradtx.adam(0.05), {"mu": codec}, min_size=4)
    assert eval(repr(tx), {**vars(precision), **vars(gradtx)}) == tx
    check_contract(tx, PARAMS)
    params, state = run(tx, 3)
    again, treedef = jax.tree.flatten(pickle.loads(pickle.dumps(state)))
    assert treedef == jax.tree.structure(state)
    halfway = run(tx, 2, jax.tree.unflatten(treedef, again), params, 3)
    jax.tree.map(np.testing.assert_array_equal, run(tx, 5), halfway)


def test_by_path_by_role_and_the_first_that_matches():
    rules = [("b", float32()), (gradtx.of_kind("hidden"), int8(4)), ("**", bfloat16())]
    tx = stored(
        gradtx.chain(gradtx.scale_by_adam(), gradtx.trace(0.9)), {"0.mu": rules, "trace": bfloat16()}, min_size=0
    )
    roles = [("w", gradtx.Role("hidden")), ("**", gradtx.Role("bias"))]
    adam, trace = gradtx.with_roles(roles, tx).init({**PARAMS, "c": jnp.ones(5)}).inner_state
    assert adam.mu["w"].codes.dtype == jnp.uint8 and adam.nu["w"].dtype == jnp.float32
    assert adam.mu["b"].dtype == jnp.float32 and adam.mu["c"].dtype == trace.trace["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: stored(gradtx.adam(0.1), {"ema": int8()}), ValueError, "stored: no slot ema; there are mu, nu"),
        (lambda: stored(gradtx.adam(0.1), {}), ValueError, "names no slot"),
        (lambda: stored(gradtx.adam(0.1), {"mu": "int8"}), TypeError, r"policy\['mu'\] must be a codec.*got 'int8'"),
        (lambda: stored(gradtx.adam(0.1), [("w", 8)]), TypeError, "must hold a codec for 'w', got 8"),
        (lambda: stored(gradtx.adam(0.1), [("ww", int8())]), ValueError, "policy: 'ww' matches no parameter"),
        (
            lambda: stored(gradtx.adam(0.1), {"mu": [("**", int8()), (("x/**", "y"), int8())]}),
            ValueError,
            r"stored: policy\['mu'\]: \('x/\*\*', 'y'\) matches no parameter",
        ),
        (lambda: stored(gradtx.error_bits(8), {"error": int8(4)}, min_size=0), ValueError, "error of b holds int8"),
        (lambda: stored(gradtx.adam(0.1), int8(4), min_size=-1), ValueError, "min_size"),
    ],
)
def test_what_is_refused(make: Any, error: type, words: str):
    with pytest.raises(error, match=words):
        make().init(jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS))


def test_a_slot_may_be_empty():
    """Muon's Adam has nothing to do where all parameters are matrices, but there is no slot of any other name."""
    state = gradtx.muon8bit(1e-2, min_size=0).init({"w": PARAMS["w"]})
    assert {x.codes.dtype for x in payloads(state)} == {np.dtype("uint8")}
    with pytest.raises(ValueError, match="stored: no slot ema; there are mu"):
        stored(gradtx.muon(1e-2), {"mu": int8(), "ema": int8()}).init({"w": PARAMS["w"]})


def test_a_block_that_does_not_fit_names_the_slot():
    with pytest.raises(ValueError, match=r"stored: int8\(.*\) cannot keep the slot 0.mu of w, of shape \(64, 1\)"):
        stored(gradtx.chain(gradtx.scale_by_adam()), {"mu": int8(4)}, min_size=4).init({"w": jnp.ones((64, 1))})


def test_swapped_arguments():
    tx = stored(gradtx.adam(0.1), EIGHT, min_size=0)
    with pytest.raises(TypeError, match="stored: state must be"):
        tx.update(gradients(0), PARAMS, tx.init(PARAMS))


@pytest.mark.parametrize("codec", [int8(4), int4(4, signed=False)], ids=repr)
def test_payloads_that_come_back_as_mappings(codec: precision.Codec):
    """As containers hand them back that know fields by names, such as the states of Flax's nnx."""
    tx = stored(gradtx.scale_by_rms(), {"nu": codec}, min_size=16)
    state = tx.init(PARAMS)
    nu = {n: x._asdict() if hasattr(x, "_asdict") else x for n, x in state.inner_state.nu.items()}
    found = tx.update(gradients(0), state._replace(inner_state=state.inner_state._replace(nu=nu)), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, found, tx.update(gradients(0), state, PARAMS))


def test_a_state_of_another_policy():
    policies = [{"mu": int8(4)}, {"mu": bfloat16()}, {"mu": int8(2)}, {"mu": companded8(4)}]
    first, *others = [stored(gradtx.adam(0.1), policy, min_size=0) for policy in policies]
    for one, other in [(first, x) for x in others] + [(x, first) for x in others]:
        with pytest.raises(TypeError, match=r"stored: the state was made by another policy: where .* keeps an array"):
            one.update(gradients(0), other.init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match="stored: the state was made for other parameters"):
        first.update(gradients(0), first.init({"w": PARAMS["w"]}), PARAMS)


@pytest.mark.slow
@pytest.mark.parametrize("codec", [c for c in CODECS if isinstance(c, Blockwise)], ids=repr)
def test_metrics_of_what_is_kept(codec: precision.Codec):
    """In a block of 4 rising numbers the last is the largest, and nothing else has its code."""
    tx = stored(gradtx.scale_by_adam(), {"mu": codec}, min_size=0)
    params = {"w": jnp.zeros((6, 2 * codec.block)), "b": jnp.zeros((3, codec.block))}
    state = tx.init(params)
    assert float(gradtx.metrics(state)["saturated_codes"]) == float(gradtx.metrics(state)["largest_scale"]) == 0
    rising = jax.tree.map(lambda p: jnp.full(p.shape, 0.01).at[:, -1].set(jnp.arange(1.0, 1.0 + p.shape[0])), params)
    _, state = tx.update(rising, state)
    found = jax.jit(gradtx.metrics)(state)
    assert set(found) == {"saturated_codes", "largest_scale"}
    np.testing.assert_allclose(found["largest_scale"], 0.1 * 6, rtol=1e-6)
    # The last block of each row has one largest element; in the first of two all are equal.
    np.testing.assert_allclose(found["saturated_codes"], (6 * (codec.block + 1) + 3) / (15 * codec.block), rtol=1e-6)


def test_metrics_where_nothing_is_kept():
    assert gradtx.metrics(stored(gradtx.adam(0.1), bfloat16()).init(PARAMS)) == {}


def test_evaluation_parameters_are_decoded():
    tx = stored(gradtx.params_ema(0.5), {"ema": bfloat16()}, min_size=0)
    params, state = run(tx, 3)
    expected = gradtx.eval_params(run(gradtx.params_ema(0.5), 3)[1], params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2), gradtx.eval_params(state, params), expected)


@pytest.mark.slow
def test_wild_gradients_make_no_wild_step():
    """From 1e-12 to 1e4 in one tensor: what second moments lose must not become a division by nothing."""
    scales = jnp.asarray(10.0 ** np.linspace(-12, 4, 256), jnp.float32).reshape(8, 32)
    for codec in (int8(256, signed=False), companded8(256, signed=False), int4(256, signed=False)):
        tx = stored(gradtx.adam(1.0), {"nu": codec}, min_size=0)
        params, state, update = jnp.zeros((8, 32)), tx.init(jnp.zeros((8, 32))), jax.jit(tx.update)
        for step in range(50):
            updates, state = update(scales * (-1.0) ** (step // 7), state, params)
            assert np.all(np.abs(updates) < 8), codec  # Adam itself makes steps of up to 1 / sqrt(1 - b2) in theory


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.COVERED)
def test_contract_of_every_factory_in_8_bits(name: str):
    # An update of ftrl is the difference of two parameters, which a compiler rounds in its own way: larger ones.
    inner = gradtx.ftrl(1.0) if name == "ftrl" else registry.example(name)
    # With factors, eigenvalues and bases in 8 bits at once, the last bit of a sum between devices turns a code, and
    # that a basis: the moments alone.
    codecs = {"mu": int8(2)} if "kl_" in name else int8(2)
    params, extra = {"w": registry.PARAMS["w"]}, registry.extra_arguments(name)
    if not payloads(jax.eval_shape(stored(inner, codecs, min_size=0).init, params)):
        pytest.skip("it keeps nothing that has 8 bits")
    extra = {n: {"w": x["w"]} if isinstance(x, dict) else x for n, x in extra.items()}
    check_contract(stored(inner, codecs, min_size=0), params, steps=2, **extra)


def test_metrics_of_what_is_kept_twice():
    """The scales of the inner payloads are payloads of the outer one."""
    tx = stored(stored(gradtx.trace(0.0), int8(4, stochastic=False), min_size=0), int8(2, stochastic=False), min_size=0)
    params = {"w": jnp.zeros((4, 8))}
    _, state = tx.update({"w": jnp.full((4, 8), 2.0)}, tx.init(params))
    found = gradtx.metrics(state, tx)
    scales = [float(v) for name, v in found.items() if name.endswith("largest_scale")]
    assert scales and all(np.isfinite(scales)) and max(scales) > 0


def test_evaluation_parameters_of_what_is_kept_twice():
    average = gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.5))
    tx = stored(stored(average, companded8(2, stochastic=False), min_size=0), precision.int4(2), min_size=0)
    params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
    found = gradtx.eval_params(state, params)
    np.testing.assert_allclose(found["w"], params["w"], atol=0.3)
