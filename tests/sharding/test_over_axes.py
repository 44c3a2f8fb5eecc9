# SPDX-License-Identifier: Apache-2.0
"""`over_axes`: inside `shard_map` and `pmap`, every number of a whole parameter or tree is the one of one device."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx import numerics
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
        extra |= {"sampled_grad": unchanged, "grad_fn": unchanged, "max_logits": jnp.ones(2, jnp.float32)}
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
    """Equal up to the rounding of sums in another order, relative to the largest number of the parameter."""
    (params, steps), (like, like_steps) = found, wanted
    for a, b in ((params, like), *zip(steps, like_steps, strict=True)):
        for name in PARAMS:
            size = float(jnp.maximum(jnp.max(jnp.abs(b[name])), jnp.max(jnp.abs(like[name]))))
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=ulps * 2.0**-23 * size)


@functools.cache
def on_one_device(tx: Any) -> tuple:
    return jax.jit(functools.partial(two_steps, tx, half_square))(PARAMS, GRADIENTS)


IN_SHARD_MAP = [n for n in COVERED if n != "over_axes"]


each_factory = pytest.mark.parametrize("name", IN_SHARD_MAP)


@pytest.mark.slow
@each_factory
def test_two_steps_of_every_factory_are_those_of_one_device(name: str):
    tx = example(name)
    assert_like_one_device(on_mesh(tx), on_one_device(tx))


OF_SUMS = {"scale_by_zoom_linesearch", "scale_by_backtracking_linesearch", "lbfgs"}
OF_SUMS |= {"hutchinson_estimator_diag_hessian", "scale_by_sophia", "sophia"}
"""Those that take gradients of sums over devices, of which JAX makes others without types that tell."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in IN_SHARD_MAP if n not in OF_SUMS])
def test_without_types_that_tell_it_is_the_same(name: str):
    tx = example(name)
    assert_like_one_device(on_mesh(tx, check=False), on_one_device(tx))


@pytest.mark.slow
@each_factory
def test_names_are_enough_or_it_says_that_they_are_not(name: str):
    """Names tell how an array is split altogether, which is all that most rules need."""
    try:
        found = on_mesh(example(name), None)
    except ValueError as error:
        assert "give over_axes the PartitionSpecs of the parameters as axes" in str(error)
    else:
        assert_like_one_device(found, on_one_device(example(name)))


@pytest.mark.slow
@each_factory
def test_without_it_numbers_are_right_or_it_is_asked_for(name: str):
    """Nothing is the number of a part in silence."""
    run = functools.partial(two_steps, example(name), half_square_over)
    mapped = jax.shard_map(run, mesh=MESH, in_specs=(SPECS, SPECS), out_specs=(SPECS, [SPECS, SPECS]))
    try:
        found = jax.jit(mapped)(PARAMS, GRADIENTS)
    except ValueError as error:
        assert "wrap the optimizer in gradtx.sharding.over_axes" in str(error)
    else:
        assert_like_one_device(found, on_one_device(example(name)))


CLIPPED = gt.clip_by_global_norm(1.0)
TREE = {"a": jnp.linspace(-3.0, 4.0, 64).reshape(16, 4), "b": jnp.full(8, 2.0, jnp.float32)}


def updated(tx: Any, gradients: Any) -> Any:
    return tx.update(gradients, tx.init(gradients), gradients)[0]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("size", [1.0, 1e25, 1e-25])
@pytest.mark.parametrize(
    "specs",
    [{"a": P("x"), "b": P("x")}, {"a": P(), "b": P()}, {"a": P("x"), "b": P()}, {"a": P(None), "b": P("x")}],
    ids=["sharded", "replicated", "mixed", "mixed otherwise"],
)
def test_a_clipped_norm_is_one(specs: Any, size: float, check: bool):
    """Also where squares leave the range of float32, on all devices or some."""
    tree = jax.tree.map(lambda x: jnp.asarray(size, x.dtype) * x, TREE)
    tx = gt.chain(gt.scale(2.0 if size < 1 else 1.0), over_axes(gt.normalize() if size < 1 else CLIPPED, specs))
    mapped = jax.shard_map(
        functools.partial(updated, tx), mesh=ROW, in_specs=(specs,), out_specs=specs, check_vma=check
    )
    np.testing.assert_allclose(gt.global_norm(jax.jit(mapped)(tree)), 1.0, rtol=1e-6)


def test_a_clipped_norm_is_one_in_pmap():
    found = jax.pmap(functools.partial(updated, over_axes(CLIPPED, "x")), axis_name="x")(
        jax.tree.map(lambda x: x.reshape(8, -1), TREE)
    )
    np.testing.assert_allclose(gt.global_norm(found), 1.0, rtol=1e-6)


def test_tree_functions_in_measures_are_of_whole_parameters():
    measures = {"norm": gt.global_norm, "largest": gt.tree.max, "sum": gt.tree.sum, "l1": _l1, "mean": _mean}
    tx = over_axes(gt.monitor(measures), {"a": P("x"), "b": P()})
    specs = {"a": P("x"), "b": P()}

    def measured(g: Any) -> Any:
        return gt.metrics(tx.update(g, tx.init(g), g)[1])

    found = jax.jit(jax.shard_map(measured, mesh=ROW, in_specs=(specs,), out_specs=P()))(TREE)
    for name, measure in measures.items():
        np.testing.assert_allclose(found[name], measure(TREE), rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda tx, specs: tx, over_axes])
def test_a_guard_may_name_the_axis(wrap: Any):
    """What every device has whole counts once."""
    specs = {"a": P("x"), "b": P()}
    tx = wrap(gt.guard(gt.identity(), axis_name="x"), specs)

    def norm(g: Any) -> jax.Array:
        return tx.update(g, tx.init(g), g)[1].norm

    found = jax.jit(jax.shard_map(norm, mesh=ROW, in_specs=(specs,), out_specs=P()))(TREE)
    np.testing.assert_allclose(found, gt.global_norm(TREE), rtol=1e-6)


def _l1(tree: Any) -> jax.Array:
    return gt.tree.norm(tree, 1)


def _mean(tree: Any) -> jax.Array:
    return gt.tree.sum(tree) / gt.tree.size(tree)


STACKED = {"layers": jnp.linspace(-1.0, 1.0, 192).reshape(4, 6, 8), "head": jnp.linspace(0.1, 2.0, 16).reshape(8, 2)}
RULES = (("layers", gt.Role("hidden", stack=0, in_axes=1, out_axes=2)), ("**", gt.Role("head")))
FASTER = (("layers", {"learning_rate": gt.times(0.5)}),)


@pytest.mark.slow
@pytest.mark.parametrize("split", [P("data", None, "model"), P("model"), P(None, "model"), P(None, None, "data")])
@pytest.mark.parametrize(
    "tx",
    [gt.lamb(0.1), gt.muon(0.1), gt.adafactor(0.1, min_dim_size_to_factor=2), gt.adam_mini(0.1), gt.adagc()],
    ids=lambda tx: repr(tx).partition("(")[0],
)
@pytest.mark.parametrize("outside", [True, False])
def test_roles_and_groups_are_kept(tx: Any, split: P, outside: bool):
    """A stack may be split along its layers or within them; roles may be given outside or inside, with groups."""
    specs = {"layers": split, "head": P("data")}
    if "learning_rate" in tx.arguments:
        tx = gt.groups(FASTER, tx)
    around, within = (lambda t: gt.with_roles(RULES, t)), (lambda t: over_axes(t, specs))
    whole = jax.jit(functools.partial(updated, around(tx)))(STACKED)
    tx = around(within(tx)) if outside else within(around(tx))
    mapped = jax.shard_map(functools.partial(updated, tx), mesh=MESH, in_specs=(specs,), out_specs=specs)
    found = jax.jit(mapped)(STACKED)
    # Layers have singular values that are 0 up to rounding, which Muon multiplies; each device may have one layer.
    limit = 1e-4 if "muon" in repr(tx) else 1e-6
    for name in STACKED:
        np.testing.assert_allclose(found[name], whole[name], rtol=0, atol=limit * float(jnp.max(jnp.abs(whole[name]))))


def test_a_device_may_have_one_block_of_many():
    """Of Adam-mini, a mean for each output; of which each device has one."""
    specs, gradients = {"w": P(None, "x")}, {"w": jnp.linspace(-1.0, 2.0, 32).reshape(4, 8)}
    tx = gt.with_roles([("w", gt.Role("hidden", in_axes=0, out_axes=1))], gt.scale_by_adam_mini())
    mapped = jax.shard_map(
        functools.partial(updated, over_axes(tx, specs)), mesh=ROW, in_specs=(specs,), out_specs=specs
    )
    np.testing.assert_allclose(jax.jit(mapped)(gradients)["w"], updated(tx, gradients)["w"], rtol=1e-6)


def test_random_bits_are_those_of_the_place_in_the_whole():
    tx = gt.chain(gt.scale_by_lr(1e-3), gt.round_stochastically(3))
    tree = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    mapped = jax.shard_map(
        functools.partial(updated, over_axes(tx, SPECS)), mesh=MESH, in_specs=(SPECS,), out_specs=SPECS
    )
    found, wanted = jax.jit(mapped)(tree), jax.jit(functools.partial(updated, tx))(tree)
    for name in PARAMS:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_masks_and_partitions_count_what_they_show():
    tx = gt.partition({"yes": gt.clip_by_global_norm(1.0), "no": gt.clip_by_norm(2.0)}, {"a": "yes", "b": "no"})
    specs = {"a": P("x"), "b": P("x")}
    mapped = jax.shard_map(
        functools.partial(updated, over_axes(tx, specs)), mesh=ROW, in_specs=(specs,), out_specs=specs
    )
    found = jax.jit(mapped)(TREE)
    np.testing.assert_allclose([jnp.linalg.norm(found["a"]), jnp.linalg.norm(found["b"])], [1.0, 2.0], rtol=1e-6)


class Centered(NamedTuple):
    last: Any
    gram: Any


def gram_rule(whole: bool) -> Any:
    """A rule with the Gram matrix of the whole, a slot like the parameter and one that is not."""

    def init(p):
        return jnp.zeros_like(p), jnp.zeros((p.shape[0], p.shape[0]), p.dtype)

    def update(g, slots, p, t, norms):
        last, gram = slots
        gram = gram + g @ g.T
        return gram @ g / norms + last, (g, gram)

    return gt.per_parameter(init, update, Centered, measure=lambda g, slots, p, t: jnp.linalg.norm(g), whole=whole)


@pytest.mark.parametrize("spec", [P("data", "model"), P("model"), P(None, ("data", "model"))])
@pytest.mark.parametrize("role", [None, gt.Role(stack=0)])
def test_a_rule_on_whole_arrays(spec: P, role: Any):
    shape = (8, 16) if role is None else (3, 8, 16)
    tree = {"a": jnp.sin(jnp.arange(float(np.prod(shape)))).reshape(shape)}
    specs = {"a": spec if role is None else P(None, *spec)}
    tx = gram_rule(True) if role is None else gt.with_roles((("**", role),), gram_rule(True))

    def run(tx: Any, g: Any) -> tuple:
        state = tx.init(g)
        _, state = tx.update(g, state, g)
        u, state = tx.update(g, state, g)
        return u, state.last, state.gram

    mapped = jax.shard_map(
        functools.partial(run, over_axes(tx, specs)), mesh=MESH, in_specs=(specs,), out_specs=(specs, specs, P())
    )
    for a, b in zip(jax.tree.leaves(jax.jit(mapped)(tree)), jax.tree.leaves(run(tx, tree)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_is_flattened_is_gathered_and_its_updates_are_cut():
    tx = gt.flatten(gt.sgd(0.1, momentum=0.9))
    assert_like_one_device(on_mesh(tx), on_one_device(tx))


@pytest.mark.parametrize(
    "tx", [gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(1e-3)), gt.lamb(1e-3)], ids=["clip and adamw", "lamb"]
)
def test_all_norms_take_one_reduction(tx: Any):
    specs = {"a": P("x"), "b": P("x")}
    step = functools.partial(updated, over_axes(tx, specs))
    mapped = jax.shard_map(step, mesh=ROW, in_specs=(specs,), out_specs=specs)
    assert jax.jit(mapped).lower(TREE).compile().as_text().count("all-reduce(") == 1


def test_a_norm_over_parameters_that_are_split_otherwise_takes_one_reduction():
    tx = over_axes(gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(1e-3)), SPECS)
    mapped = jax.shard_map(functools.partial(updated, tx), mesh=MESH, in_specs=(SPECS,), out_specs=SPECS)
    assert jax.jit(mapped).lower(PARAMS).compile().as_text().count("all-reduce(") == 1


def test_factors_take_at_most_one_reduction_for_each_parameter():
    tx = over_axes(gt.adafactor(1e-3, min_dim_size_to_factor=2), SPECS)
    mapped = jax.shard_map(functools.partial(updated, tx), mesh=MESH, in_specs=(SPECS,), out_specs=SPECS)
    assert 0 < jax.jit(mapped).lower(PARAMS).compile().as_text().count("all-reduce(") <= len(PARAMS)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4, 8])
def test_parts_of_one_shape_of_wholes_of_several(number: int):
    """What was compiled for parts on other numbers of devices is not taken for these."""
    mesh = jax.make_mesh((number,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:number])
    tx, tree = gt.came(0.1), {"a": jnp.sin(jnp.arange(12.0 * number)).reshape(2 * number, 6)}
    step = functools.partial(updated, over_axes(tx, P("x")))
    found = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P("x"),), out_specs=P("x")))(tree)["a"]
    np.testing.assert_allclose(found, jax.jit(functools.partial(updated, tx))(tree)["a"], rtol=1e-5, atol=1e-6)


def test_a_second_step_is_not_traced_again():
    tx, traces = over_axes(gt.lamb(1e-3), "x"), []
    mapped = jax.jit(
        jax.shard_map(lambda g: traces.append(None) or updated(tx, g), mesh=ROW, in_specs=P("x"), out_specs=P("x"))
    )
    tree = jax.device_put(TREE, jax.NamedSharding(ROW, P("x")))
    mapped(mapped(tree))
    assert len(traces) == 1


def test_the_state_of_whole_parameters_can_be_cut():
    """`init` outside of `shard_map` makes the state of the whole, whose parts are those of `init` inside."""
    tx = over_axes(gt.adafactor(0.1, min_dim_size_to_factor=2), SPECS)
    outside = jax.eval_shape(tx.init, PARAMS)
    first, *rest = jax.tree.map(lambda _: P(), outside)
    # Of w there are factors only, and of the others none.
    slots = {"v": {**SPECS, "w": P()}, "v_row": {**first.v, "w": P("data")}, "v_col": {**first.v, "w": P("model")}}
    state = (first._replace(**slots), *rest)
    inside = jax.eval_shape(jax.shard_map(tx.init, mesh=MESH, in_specs=(SPECS,), out_specs=state), PARAMS)
    assert inside == outside


def in_row(tx: Any, check: bool = True) -> Any:
    return jax.shard_map(
        functools.partial(updated, tx), mesh=ROW, in_specs=(P("x"),), out_specs=P("x"), check_vma=check
    )(TREE)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: in_row(over_axes(CLIPPED, "y")), "over_axes: axes names 'y', but the axes here are x"),
        (lambda: in_row(over_axes(CLIPPED, {"a": P("x"), "b": P("y")})), "names 'y', but the axes here are x"),
        (
            lambda: in_row(over_axes(CLIPPED, {"a": P("x"), "b": P(None, "x")})),
            r"axes has P\(None, 'x'\) at \['b'\], which is longer than the rank of the parameter, of shape \(1,\)",
        ),
        (lambda: in_row(over_axes(CLIPPED), False), "give axes, PartitionSpecs or names out of x"),
        (lambda: updated(over_axes(CLIPPED, "x"), TREE), "there are no mesh axes outside of shard_map and pmap"),
        (lambda: in_row(over_axes(CLIPPED, {"a": P("x")})), r"over_axes: the trees do not match: axes has nothing for"),
        (lambda: in_row(CLIPPED), r"clip_by_global_norm: at \['a'\]: the parameter is split over the mesh axes x, so"),
        (
            lambda: in_row(gt.clip_by_norm(1.0)),
            r"clip_by_norm: at \['a'\]: the parameter is split over the mesh axes x",
        ),
        (
            lambda: in_row(over_axes(gt.centralize(), "x")),
            r"centralize: at \['a'\]: the rule reduces over some axes of an array of rank 2, but of the split only the",
        ),
        (lambda: over_axes(CLIPPED).update(TREE, CLIPPED.init(TREE)), "without axes, update needs the parameters"),
    ],
)
def test_errors(run: Any, message: str):
    with pytest.raises(ValueError, match=message):
        run()


def test_axes_of_another_kind():
    with pytest.raises(TypeError, match=r"over_axes: axes must be a tree of PartitionSpecs or the names .* got 3 at "):
        over_axes(CLIPPED, {"a": 3})


def test_numbers_of_each_device_can_be_asked_for():
    """Parameters that differ between devices without being parts of one: a population."""
    found = in_row(over_axes(CLIPPED, ()))
    norms = jnp.sqrt(jnp.sum(found["a"].reshape(8, -1) ** 2, 1) + jnp.sum(found["b"].reshape(8, -1) ** 2, 1))
    np.testing.assert_allclose(norms, 1.0, rtol=1e-6)


def test_gradients_that_differ_of_parameters_that_do_not_are_no_error():
    """So is data parallel code that forgot its mean, whatever it is worth."""
    step = jax.shard_map(
        lambda p, g: CLIPPED.update(g, CLIPPED.init(p), p)[0], mesh=ROW, in_specs=(P(), P("x")), out_specs=P("x")
    )
    step(jax.tree.map(lambda x: x[: x.shape[0] // 8], TREE), TREE)


def test_outside_of_a_mesh_nothing_is_split():
    tx = gt.lamb(0.1)
    wanted = updated(tx, TREE)
    for axes in (None, (), P()):
        for a, b in zip(jax.tree.leaves(updated(over_axes(tx, axes), TREE)), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("tx", "names"),
    [
        (gt.muon(0.1), ("scale_by_muon",)),
        (gt.chain(gt.flatten(gt.adam(0.1)), gt.galore(0.1)), ("flatten", "low_rank")),
        (gt.galore(0.1, scale=lambda step: 0.25), ("low_rank",)),
        (gt.chain(gt.clip_by_global_norm(1.0), gt.lamb(0.1)), ()),
    ],
)
def test_describe_says_what_gathers(tx: Any, names: tuple):
    params = {"w": jnp.ones((8, 16)), "b": jnp.ones(16)}
    found = gt.describe(over_axes(tx, {"w": P("x"), "b": P()}), params)
    assert found.gathering == names and ("parameters are gathered for" in str(found)) == bool(names)
    assert gt.describe(tx, params).gathering == ()


@gt.transformation
def rule_of_ones_own() -> gt.GradientTransformation:
    def update(g: Any, slots: Any, p: Any, t: Any) -> tuple:
        x = numerics
        rows = x.mean(g * g, axis=-1, keepdims=True) + x.size(g, -1) * x.largest(jnp.abs(g), axis=-1, keepdims=True)
        return g / (rows + x.total(jnp.abs(g)) + x.size(g)), slots

    return gt.per_parameter(None, update)


def test_rules_of_ones_own_reduce_over_whole_parameters():
    g = jnp.arange(1.0, 97.0).reshape(8, 12)
    want = rule_of_ones_own().update(g, rule_of_ones_own().init(g), g)[0]
    for spec in (P("x"), P(None, "model"), P("data", "model"), P()):
        on = ROW if "x" in spec else MESH
        tx = over_axes(rule_of_ones_own(), spec)

        def updated(g: Any, tx: Any = tx) -> Any:
            return tx.update(g, tx.init(g), g)[0]

        found = jax.jit(jax.shard_map(updated, mesh=on, in_specs=spec, out_specs=spec))(g)
        np.testing.assert_allclose(found, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            lambda tx: tx,
            "split over the mesh axes x, .* wrap the optimizer in gradtx.sharding.over_axes",
        ),
        (lambda tx: over_axes(tx, "x"), "only the names x are known: give over_axes the PartitionSpecs"),
    ],
)
def test_rules_of_ones_own_are_not_local_in_silence(wrap: Any, message: str):
    tx = wrap(rule_of_ones_own())

    def updated(g: Any) -> Any:
        return tx.update(g, tx.init(g), g)[0]

    with pytest.raises(ValueError, match=message):
        jax.jit(jax.shard_map(updated, mesh=ROW, in_specs=P("x"), out_specs=P("x")))(jnp.ones((8, 12)))


def test_layers_that_differ_are_not_split_between_devices():
    """Each device would count its own layers from 0."""
    stack, rates = {"layers": jnp.ones((8, 16))}, [("layers", {"learning_rate": gt.layerwise_decay(0.5)})]
    tx = gt.with_roles([("layers", gt.Role("hidden", stack=0))], gt.groups(rates, gt.sgd(1.0)))

    def updated(spec: P) -> jax.Array:
        inside = over_axes(tx, {"layers": spec})
        step = jax.shard_map(
            lambda g: inside.update(g, inside.init(g), g)[0],
            mesh=ROW,
            in_specs=({"layers": spec},),
            out_specs={"layers": spec},
        )
        return jax.jit(step)(stack)["layers"]

    np.testing.assert_array_equal(updated(P(None, "x")), tx.update(stack, tx.init(stack), stack)[0]["layers"])
    with pytest.raises(ValueError, match="the layers of layers are on several devices.*split another axis"):
        updated(P("x"))
