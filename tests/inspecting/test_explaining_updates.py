# SPDX-License-Identifier: Apache-2.0
"""`explain_update` says what each stage does to the updates of one step."""

import functools
import io
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich.console
from flax import nnx

import gradtx as gt
from gradtx import explain_update
from gradtx.core._nesting import inside
from support import registry

PARAMS = {
    "layers": {"0": {"kernel": jnp.full((4, 3), 0.1), "bias": jnp.zeros(3)}, "1": {"kernel": jnp.full((3, 3), 2.0)}},
    "head": jnp.full((3, 2), 1.0),
}
GRADS = jax.tree.map(lambda p: jnp.linspace(-1.0, 2.0, p.size).reshape(p.shape), PARAMS)


def step(tx, path=None, grads=GRADS, params=PARAMS, state=None, **extra):
    return explain_update(tx, grads, tx.init(params) if state is None else state, params, path, **extra)


def row(found, *steps):
    return next(r for r in found.rows if r.path == steps)


def norm(tree):
    return math.sqrt(sum(float(np.sum(np.asarray(x, np.float64) ** 2)) for x in jax.tree.leaves(tree)))


def test_a_chain_stage_by_stage():
    tx = gt.chain(gt.clip_by_global_norm(1.0), gt.trace(0.9), gt.add_decayed_weights(0.1), gt.scale(-0.5))
    found = step(tx)
    assert [(r.path, r.depth, r.call) for r in found.rows] == [
        ((), 0, "chain(...)"),
        (("0",), 1, "clip_by_global_norm(1.0)"),
        (("1",), 1, "trace(0.9)"),
        (("2",), 1, "add_decayed_weights(weight_decay=0.1)"),
        (("3",), 1, "scale(-0.5)"),
    ]
    clip, trace, decay, scale = found.rows[1:]
    assert clip.norm_in == pytest.approx(norm(GRADS)) and clip.norm_out == pytest.approx(1)
    assert (clip.cosine, clip.changed, clip.clipped) == (
        pytest.approx(1),
        pytest.approx(22 / 23, abs=0.05),
        clip.changed,
    )
    assert (trace.changed, trace.clipped, trace.decayed) == (0, None, None)
    assert decay.decayed == 1 and decay.changed == pytest.approx(27 / 30)  # 3 of the 30 elements are zero
    decayed = jax.tree.map(lambda g, p: g / norm(GRADS) + 0.1 * p, GRADS, PARAMS)
    assert decay.norm_out == pytest.approx(norm(decayed)) == scale.norm_in
    dot = sum(float(jnp.vdot(x, y)) for x, y in zip(jax.tree.leaves(decayed), jax.tree.leaves(GRADS), strict=True))
    assert scale.cosine == pytest.approx(-dot / norm(decayed) / norm(GRADS), rel=1e-5)
    assert found.rows[0].norm_in == clip.norm_in and found.rows[0].norm_out == scale.norm_out


def test_the_whole_is_the_update():
    tx = gt.sgd(1e-2, momentum=0.9)
    state = tx.init(PARAMS)
    updates, new = tx.update(GRADS, state, PARAMS)
    found = explain_update(tx, GRADS, new, PARAMS)
    again, _ = tx.update(GRADS, new, PARAMS)
    assert found.rows[0].norm_out == pytest.approx(norm(again), rel=1e-6)
    assert found.rows[0].norm_out != pytest.approx(norm(updates), rel=1e-6)  # the state counts
    for p in found.parameters:
        u = functools.reduce(lambda tree, name: tree[name], p.path.split("/"), again)
        assert p.update == pytest.approx(norm(u), rel=1e-6)


def test_the_state_is_not_changed():
    tx = gt.chain(gt.guard(gt.adam(0.1)), gt.params_ema(0.9))
    state = tx.init(PARAMS)
    before = jax.tree.map(np.asarray, (GRADS, state, PARAMS))
    explain_update(tx, GRADS, state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, before, (GRADS, state, PARAMS))
    assert repr(tx) == "chain(guard(adam(0.1)), params_ema(decay=0.9))"


@pytest.mark.parametrize(
    ("path", "paths"),
    [
        (None, {"layers/0/kernel", "layers/0/bias", "layers/1/kernel", "head"}),
        ("layers/1/kernel", {"layers/1/kernel"}),
        ("kernel", {"layers/0/kernel", "layers/1/kernel"}),
        ("layers/**", {"layers/0/kernel", "layers/0/bias", "layers/1/kernel"}),
        (gt.where("bias", "head"), {"layers/0/bias", "head"}),
        (~gt.where("bias", "head"), {"layers/0/kernel", "layers/1/kernel"}),
        (lambda path, p: p.ndim == 1, {"layers/0/bias"}),
    ],
)
def test_a_part_of_the_parameters(path, paths):
    """Numbers are of these only, and the stages see all nevertheless."""
    found = step(gt.clip_by_global_norm(1.0), path)
    assert {p.path for p in found.parameters} == paths and found.total == 4
    scale = norm(GRADS)
    assert found.rows[0].norm_in == pytest.approx(math.sqrt(sum(p.gradient**2 for p in found.parameters)))
    assert found.rows[0].norm_out == pytest.approx(found.rows[0].norm_in / scale, rel=1e-5)  # pyright: ignore[reportOptionalOperand]


def test_by_role():
    tx = gt.with_roles(gt.infer_roles, gt.sgd(0.1))
    assert {p.path for p in step(tx, gt.of_kind("bias")).parameters} == {"layers/0/bias"}
    assert row(step(tx), "inner").norm_out == pytest.approx(0.1 * norm(GRADS))


def test_masks():
    tx = gt.chain(gt.masked(gt.scale(2.0), gt.where("kernel")), gt.adamw(0.1, weight_decay=0.1, mask=gt.where("head")))
    found = step(tx)
    assert row(found, "0", "inner").masked == pytest.approx(9 / 30)
    assert row(found, "0").masked == 0 and row(found, "0").changed == pytest.approx(21 / 30, abs=0.05)
    assert row(found, "1", "1").decayed == pytest.approx(6 / 30)
    assert row(step(tx, "head"), "0", "inner").masked == 1


def test_groups_and_frozen_parameters():
    rules = [("head", {"learning_rate": gt.times(0.1)}), ("bias", "frozen"), ("layers/1/kernel", gt.sgd(0.5))]
    found = step(gt.groups(rules, gt.sgd(0.1)))
    base, other = row(found, "base", "transforms.base"), row(found, "base", "transforms.rule 2")
    assert base.masked == pytest.approx(12 / 30) and other.masked == pytest.approx(21 / 30)
    assert other.norm_out == pytest.approx(0.5 * norm(GRADS["layers"]["1"]))
    moved = {p.path: p.update / p.gradient for p in found.parameters}
    assert moved == pytest.approx(
        {"head": 0.01, "layers/0/bias": 0.0, "layers/1/kernel": 0.5, "layers/0/kernel": 0.1}, rel=1e-5
    )


def test_what_a_wrapper_skips_did_not_run():
    tx = gt.MultiSteps(gt.adam(0.1), 2)
    state = tx.init(PARAMS)
    assert [r.ran for r in step(tx, state=state).rows] == [True, False, False, False]
    assert "0: scale_by_adam() (did not run)" in str(step(tx, state=state))
    _, state = tx.update(GRADS, state, PARAMS)
    assert all(r.ran for r in step(tx, state=state).rows)
    bad = jax.tree.map(lambda g: g.at[(0,) * g.ndim].set(jnp.nan), GRADS)
    found = step(gt.guard(gt.adam(0.1)), grads=bad)
    assert found.rows[0].norm_out == 0 and not row(found, "inner").ran


def test_where_numbers_stop_being_finite():
    bad = {**GRADS, "head": jnp.full((3, 2), jnp.inf)}
    found = step(gt.chain(gt.sgd(0.1), gt.zero_nans()), grads=bad)
    assert [r.not_finite for r in found.rows] == [6, 6, 6, 6, 6]
    assert found.parameters[0].path == "head" and found.parameters[0].not_finite == 6
    huge = {**GRADS, "head": jnp.full((3, 2), 1e30, jnp.float32)}
    assert step(gt.sgd(1.0), grads=huge).rows[0].norm_in == pytest.approx(1e30 * math.sqrt(6), rel=1e-5)


def test_updates_that_rounding_loses():
    params = {"w": jnp.ones(8, jnp.bfloat16), "b": jnp.ones(8)}
    grads = jax.tree.map(jnp.ones_like, params)
    found = step(gt.sgd(1e-4), grads=grads, params=params)
    assert found.rows[0].lost == 0.5 and {p.path: p.lost for p in found.parameters} == {"w": 1, "b": 0}
    kept = step(gt.chain(gt.sgd(0.02), gt.round_stochastically(0)), "w", grads=grads, params=params)
    assert row(kept, "0").lost == 0 and kept.rows[0].lost == 0


def test_hyperparameters_in_the_state():
    tx = gt.inject_hyperparams(gt.sgd)(0.1)
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    found = step(tx, state=state)
    assert row(found, "inner").norm_out == found.rows[0].norm_out == pytest.approx(0.5 * norm(GRADS))
    assert row(found, "inner").call == "sgd"


def test_a_vector_of_all_has_norms_only():
    inner = row(step(gt.flatten(gt.sgd(0.1))), "inner")
    assert inner.norm_out == pytest.approx(0.1 * norm(GRADS))
    assert (inner.cosine, inner.masked, inner.lost) == (None, None, None)


def test_stages_of_others():
    found = step(gt.chain(optax.scale(2.0), gt.GradientTransformation(lambda p: (), lambda u, s, p=None: (u, s))))
    assert row(found, "0").norm_out == pytest.approx(2 * norm(GRADS)) and row(found, "1").changed == 0
    assert step(optax.sgd(0.1)).rows[0].norm_out == pytest.approx(0.1 * norm(GRADS))


def test_a_model_of_flax():
    """The state in an `nnx.Optimizer` has variables of its own."""
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gt.chain(gt.clip(1.0), gt.adam(0.1)), wrt=nnx.Param)  # pyright: ignore[reportArgumentType]  # Optax's class
    grads = nnx.grad(lambda model: jnp.sum(model(jnp.ones((2, 4)))))(model)
    found = explain_update(optimizer.tx, grads, optimizer.opt_state, nnx.state(model, nnx.Param), "kernel")
    assert [p.path for p in found.parameters] == ["kernel"]
    assert found.rows[0].norm_out == pytest.approx(0.1 * math.sqrt(12))


def test_gradients_that_are_none():
    found = step(gt.sgd(0.1), grads={**GRADS, "head": None})
    assert {p.path for p in found.parameters} == {"layers/0/kernel", "layers/0/bias", "layers/1/kernel"}
    assert step(gt.sgd(0.1), grads=jnp.ones(3), params=jnp.ones(3)).parameters[0].path == "(root)"


def test_extra_arguments():
    found = step(gt.polyak_sgd(), value=jnp.asarray(0.5))
    assert found.rows[0].ran
    with pytest.raises(ValueError, match="update needs value"):
        step(gt.polyak_sgd())


def test_parameters_that_are_not_there():
    with pytest.raises(ValueError, match="explain_update: params lack what grads have: head, layers/0/bias, layers"):
        gt.explain_update(gt.sgd(0.1), GRADS, gt.sgd(0.1).init(GRADS), None)


def test_inside_of_jit():
    tx = gt.sgd(0.1)
    with pytest.raises(
        TypeError, match=r"explain_update: grads is traced at \['head'\] .* outside of jit.*record_metrics"
    ):
        jax.jit(lambda g: step(tx, grads=g))(GRADS)
    with pytest.raises(TypeError, match=r"explain_update: tx is traced at .*learning_rate"):
        jax.jit(lambda rate: step(gt.sgd(rate)))(0.1)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("layers/2/kernel", "explain_update: path 'layers/2/kernel' matches no parameter; the closest are layers/"),
        (("nothing", "here"), "matches no parameter; the parameters are head"),
        ("", "explain_update: path: the glob '' matches no path"),
        (gt.of_kind("norm"), "asks for the kind of the parameter at .*, which nobody said"),
    ],
)
def test_a_path_without_a_parameter(path, error):
    with pytest.raises(ValueError, match=error):
        step(gt.sgd(0.1), path)


def test_as_text_and_as_data():
    tx = gt.chain(gt.clip_by_global_norm(1.0), gt.sgd(0.1))
    found = step(tx, "layers/1/kernel")
    assert (
        str(found)
        == """\
one step, 1 of 4 parameters: those of 'layers/1/kernel'

stage                                     in     out  cosine  changed  clipped
chain(...)                              3.27  0.0535  -1.000    100 %
  0: clip_by_global_norm(1.0)           3.27   0.535  +1.000    100 %    100 %
  1: sgd(0.1)                          0.535  0.0535  -1.000    100 %
    0: identity()                      0.535   0.535  +1.000        0
    1: scale_by_lr(learning_rate=0.1)  0.535  0.0535  -1.000    100 %

parameter        shape   gradient  update  parameter norm  update / parameter  lost
layers/1/kernel  (3, 3)      3.27  0.0535               6             0.00891     0"""
    )
    data = json.loads(json.dumps(found.to_dict()))
    assert data["rows"][2]["path"] == ["1"] and data["parameters"][0]["shape"] == [3, 3]
    page = found._repr_html_()
    assert page.count("<tr>") == 6 + 2 and "clip_by_global_norm(1.0)</td>" in page
    console = rich.console.Console(width=100, file=io.StringIO())
    console.print(found)
    assert "clip_by_global_norm" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


WRAPPERS = [n for n in registry.COVERED if any(inside(dict(registry.example(n).arguments)))]


@pytest.mark.parametrize("name", [registry.turns(n, i) for i, n in enumerate(WRAPPERS)])
def test_of_every_wrapper_the_whole_is_the_update(name):
    tx, extra = registry.example(name), registry.extra_arguments(name)
    state = tx.init(registry.PARAMS)
    found = explain_update(tx, registry.GRADIENTS, state, registry.PARAMS, **extra)
    updates, _ = tx.update(registry.GRADIENTS, state, registry.PARAMS, **extra)
    assert found.rows[0].norm_out == pytest.approx(norm(updates), rel=1e-4)
    assert len(found.rows) > 1, "what is inside has rows too"
