# SPDX-License-Identifier: Apache-2.0
"""Matrices spread over devices, each of which works on some: numbers are those of one device, and so is the state.

`collectives` counts what devices exchange in a compiled step, and sees that nothing is exchanged in a loop.
"""

import collections
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx import Role
from gradtx.sharding import init_sharded, over_axes, spread_matrices
from support.meshes import mesh

EXCHANGE = r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
KINDS = ("explicit", "automatic", "manual")
FEW = {"few": ((8, 24), 3), "even": ((16, 8), 8), "odd": ((8, 16), 9), "many": ((24, 16), 24)}
"""Shapes and numbers of matrices: fewer than eight devices, as many, some more, three times as many."""


def collectives(compiled: Any) -> dict[str, int]:
    text = compiled.as_text()
    start = text.index("\nENTRY ")
    assert not re.findall(EXCHANGE, text[:start]), "devices exchange something in a loop"
    return dict(collections.Counter(re.findall(EXCHANGE, text[start:])))


def flops(compiled: Any) -> float:
    found = compiled.cost_analysis()
    return (found[0] if isinstance(found, list) else found)["flops"]


def matrices(counts: dict, seed: int, dtype: Any = np.float64) -> dict:
    r = np.random.default_rng(seed)
    return {f"{name}{i}": r.normal(size=shape).astype(dtype) for name, (shape, n) in counts.items() for i in range(n)}


def on_devices(tx: Any, kind: str, spec: P, over: Any, params: Any, gradients: Any, **sizes: int) -> tuple:
    """A lowered step for parameters that are split so, and its arguments; structs do for arrays."""
    on = mesh(AxisType.Explicit if kind == "explicit" else AxisType.Auto, **sizes)
    wrapped = tx if over is None else spread_matrices(tx, over)
    shapes = {x.shape for x in params.values()}
    state = jax.eval_shape(tx.init, params) if is_struct(params) else tx.init(params)
    specs = jax.tree.map(lambda x: spec if x.shape in shapes else P(), state)
    lying = NamedSharding(on, spec)
    to = jax.tree.map(lambda s: NamedSharding(on, s), specs)
    given = put(gradients, lying), jax.tree.map(put, state, to), put(params, lying)
    with jax.set_mesh(on):
        if kind == "manual":
            step = over_axes(wrapped, spec).update
            f = jax.shard_map(step, in_specs=(spec, specs, spec), out_specs=(spec, specs))
            return jax.jit(f).lower(*given), given
        # Explicit types tell where results lie.
        results = None if kind == "explicit" else (lying, to)
        return jax.jit(wrapped.update, out_shardings=results).lower(*given), given


def is_struct(tree: Any) -> bool:
    return isinstance(jax.tree.leaves(tree)[0], jax.ShapeDtypeStruct)


def put(tree: Any, to: Any) -> Any:
    if is_struct(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to), tree)
    return jax.device_put(tree, to)


def assert_like_one_device(tx: Any, kind: str, spec: P, over: Any, counts: dict, **sizes: int) -> Any:
    """Two steps have the numbers of one device; the second does not compile. Returns the compiled step."""
    with jax.enable_x64(True):
        params, gradients = matrices(counts, 0), matrices(counts, 1)
        state, step = tx.init(jax.tree.map(jnp.asarray, params)), jax.jit(tx.update)
        lowered, (g, kept, p) = on_devices(tx, kind, spec, over, params, gradients, **sizes)
        compiled = lowered.compile()
        lies = [x.sharding for x in jax.tree.leaves(kept)]
        for _ in range(2):
            u, state = step(gradients, state, params)
            v, kept = compiled(g, kept, p)
            rows = zip(jax.tree_util.tree_leaves_with_path((u, state)), jax.tree.leaves((v, kept)), strict=True)
            for (path, a), b in rows:
                limit = 1e-11 * np.max(np.abs(a), initial=1.0)
                np.testing.assert_allclose(b, a, rtol=0, atol=limit, err_msg=jax.tree_util.keystr(path))
            gradients, g = (jax.tree.map(lambda x: jnp.sin(3 * x), tree) for tree in (gradients, g))
        assert all(x.sharding.is_equivalent_to(s, x.ndim) for x, s in zip(jax.tree.leaves(kept), lies, strict=True))
    return compiled


RULES = {
    "muon": gt.scale_by_muon(),
    "soap": gt.scale_by_soap(precondition_frequency=1),
    "dion": gt.scale_by_dion(rank=4),
}


def asked(kind: str, over: Any) -> Any:
    return over if kind == "automatic" else None


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_numbers_are_those_of_one_device(name: str, kind: str):
    assert_like_one_device(RULES[name], kind, P("x"), asked(kind, "x"), FEW, x=8)


ODD = {"odd": ((8, 16), 9)}
ONCE = {"all-to-all": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_nine_matrices_on_eight_devices(kind: str):
    found = collectives(assert_like_one_device(RULES["muon"], kind, P("x"), asked(kind, "x"), ODD, x=8))
    assert found == ONCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["explicit", "manual"])
@pytest.mark.parametrize("spec", [P("a", "b"), P("b", "a"), P(("b", "a")), P(None, ("a", "b"))], ids=str)
def test_over_two_axes_of_a_mesh_it_is_one_exchange(spec: P, kind: str):
    assert collectives(assert_like_one_device(RULES["muon"], kind, spec, None, ODD, a=4, b=2)) == ONCE


@pytest.mark.slow
def test_automatic_axes_are_exchanged_one_after_the_other():
    found = collectives(assert_like_one_device(RULES["muon"], "automatic", P("a", "b"), ("a", "b"), ODD, a=4, b=2))
    assert found == {"all-to-all": 4}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["explicit", "manual"])
@pytest.mark.parametrize(
    "spec, over, exchanged",
    [
        (P("a", "b"), "b", {"all-gather": 1, "all-to-all": 2}),  # a is gathered
        (P(("b", "a")), "b", {"all-gather": 2}),  # so is an axis that is split over a as well; updates come back
        (P("b"), ("a", "b"), {"all-gather": 1, "all-to-all": 2}),
        (P(), "a", {"all-gather": 1}),  # replicated: slices are free
        (P("a", "b"), (), None),
    ],
    ids=str,
)
def test_other_axes_where_asked(spec: P, over: Any, exchanged: Any, kind: str):
    found = collectives(assert_like_one_device(RULES["muon"], kind, spec, over, ODD, a=4, b=2))
    assert found == exchanged or exchanged is None and set(found) == {"all-gather"}


@pytest.mark.slow
def test_replicated_parameters_on_automatic_axes_are_gathered_once():
    found = collectives(assert_like_one_device(RULES["muon"], "automatic", P(), "a", ODD, a=4, b=2))
    assert found == {"all-gather": 1}


PARTS = {
    "stack": (Role("hidden", stack=0, in_axes=1, out_axes=2), {"w": ((4, 16, 8), 2)}, P("a", "b")),
    "split layers": (Role("hidden", stack=0, in_axes=1, out_axes=2), {"w": ((4, 16, 8), 2)}, P("a")),
    "padded stack": (Role("hidden", stack=0, in_axes=1, out_axes=2), {"w": ((12, 16, 8), 1)}, P(None, "a", "b")),
    "heads": (Role("hidden", in_axes=0, out_axes=(1, 2), heads=1), {"w": ((16, 4, 8), 8)}, P("a", "b")),
    "kernel": (Role("hidden", in_axes=2, out_axes=3, kernel=(0, 1)), {"w": ((4, 2, 8, 16), 9)}, P("a", "b")),
    "blocks": (Role("hidden", in_axes=0, out_axes=1, blocks=(8, 4, 4)), {"w": ((16, 16), 9)}, P(("a", "b"))),
}
"""Parameters of many matrices, of which devices have parts: stacks that are split stay where they are."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_parameters(name: str, kind: str):
    role, counts, spec = PARTS[name]
    tx = gt.with_roles([("*", role)], RULES["muon"])
    found = collectives(assert_like_one_device(tx, kind, spec, asked(kind, ("a", "b")), counts, a=4, b=2))
    if kind != "automatic":
        assert found == ({} if name == "split layers" else ONCE)


def others(state: Any, count: int) -> int:
    """The arrays that Shampoo has for each of so many parameters, besides its momentum."""
    return len(jax.tree.leaves(state._replace(count=None, mu=None))) // count


@pytest.mark.slow
def test_factors_of_blocks():
    tx = gt.with_roles([("*", PARTS["blocks"][0])], gt.scale_by_shampoo())
    found = collectives(assert_like_one_device(tx, "explicit", P("a", "b"), None, {"w": ((12, 16), 9)}, a=4, b=2))
    assert found == {"all-to-all": 3, "all-gather": others(tx.init(matrices({"w": ((12, 16), 9)}, 0, np.float32)), 9)}


@gt.transformation
def of_unit_norm(size: gt.typing.Positive):
    return gt.per_matrix(None, lambda g, slots, p, t: (size * g / jnp.sqrt(jnp.sum(g * g)), slots))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_matrix_keeps_the_number_of_its_group(kind: str):
    rules = [("*", {"size": gt.layerwise_decay(0.5)})]
    role = Role("hidden", stack=0, in_axes=1, out_axes=2)
    tx = gt.with_roles([("*", role)], gt.groups(rules, of_unit_norm(3.0)))
    for spec in [P("a"), P(None, "a", "b")][kind == "manual" :]:  # groups of a stack are of all of it
        assert_like_one_device(tx, kind, spec, asked(kind, ("a", "b")), {"w": ((12, 8, 16), 1)}, a=4, b=2)


LARGE = {f"w{i}": jax.ShapeDtypeStruct((512, 2048), jnp.float32) for i in range(24)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_muon_on_24_matrices_exchanges_parts_twice_and_does_an_eighth_of_the_work(kind: str):
    overs = asked(kind, "x"), ()
    spread, whole = (on_devices(gt.muon(0.1), kind, P("x"), over, LARGE, LARGE, x=8)[0].compile() for over in overs)
    assert collectives(spread) == ONCE
    assert collectives(whole) == {"all-gather": 1}
    assert 7.5 < flops(whole) / flops(spread) < 8.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_gathered_once_each(kind: str):
    """Gradients and momentum enter in parts, updates come back. Every device has the factors, and slices them."""
    params = {f"w{i}": jax.ShapeDtypeStruct((16, 32), jnp.float32) for i in range(8)}
    lowered, _ = on_devices(gt.scale_by_shampoo(), kind, P("x"), asked(kind, "x"), params, params, x=8)
    slots = others(jax.eval_shape(gt.scale_by_shampoo().init, params), len(params))
    assert collectives(lowered.compile()) == {"all-to-all": 3, "all-gather": slots}


@pytest.mark.slow
def test_factors_that_are_split_themselves_are_exchanged_too():
    """As `init_sharded` puts large ones."""
    on = mesh(AxisType.Explicit, x=8)
    params = {str(i): jax.device_put(jnp.ones((128, 128)), NamedSharding(on, P("x"))) for i in range(8)}
    tx = gt.scale_by_shampoo()
    state = init_sharded(tx, params)
    with jax.set_mesh(on):
        compiled = jax.jit(tx.update).lower(params, state, params).compile()
    found = collectives(compiled)
    assert found.pop("all-to-all") == 3 + 2 * 4
    assert sum(found.values()) == others(state, 8) - 4  # numbers beside the factors
    got = compiled(params, state, params)
    assert jax.tree.map(jax.typeof, got[1]) == jax.tree.map(jax.typeof, state)
    assert jax.tree.map(lambda x: x.sharding, got[1]) == jax.tree.map(lambda x: x.sharding, state)


ON_MATRICES = "muon normuon adamuon namo polargrad aurora scion dion dion2 shampoo soap kl_shampoo kl_soap".split()
ON_MATRICES += ["splus", "psgd_kron"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["explicit", "manual"])
@pytest.mark.parametrize("name", ON_MATRICES)
def test_loops_and_conditions_of_every_rule_take_what_differs_between_devices(name: str, kind: str):
    """By its types, which are looked at without `check_vma=False`."""
    tx = getattr(gt, f"scale_by_{name}")(**{"dion": {"rank": 4}}.get(name, {}))
    params = {f"w{i}": jax.ShapeDtypeStruct((16, 32), jnp.float32) for i in range(9)}
    found, _ = on_devices(tx, kind, P("x"), None, params, params, x=8)
    assert "all_to_all" in found.as_text()


@pytest.mark.slow
def test_types_are_enough_without_a_mesh_around_the_call():
    """Under jit, where a second step does not compile again, and outside of it."""
    lying = NamedSharding(mesh(AxisType.Explicit, x=8), P("x"))
    params = jax.device_put(matrices(ODD, 0, np.float32), lying)
    tx = gt.scale_by_muon()
    step, state = jax.jit(tx.update), init_sharded(tx, params)
    u, after = step(params, state, params)
    step(params, after, params)
    assert step._cache_size() == 1
    eager, _ = tx.update(params, state, params)
    assert {x.sharding.spec for x in jax.tree.leaves((u, eager))} == {P("x", None)}
    assert jax.tree.all(jax.tree.map(jnp.allclose, u, eager))


@pytest.mark.slow
@pytest.mark.parametrize("over", [None, "a", ("a", "b")])
def test_a_mesh_with_axes_of_both_kinds(over: Any):
    on = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto, AxisType.Explicit))
    params = matrices(ODD, 0, np.float32)
    tx = RULES["muon"]
    want, _ = jax.jit(tx.update)(params, tx.init(params), params)
    with jax.set_mesh(on):
        given = jax.device_put(params, NamedSharding(on, P("b")))
        got, _ = jax.jit((tx if over is None else spread_matrices(tx, over)).update)(given, tx.init(given), given)
    for name, u in want.items():
        np.testing.assert_allclose(got[name], u, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_in_pmap():
    tx = over_axes(RULES["muon"], P("x"))
    params = matrices({"w": ((8, 2, 8), 9)}, 0, np.float32)
    got = jax.pmap(lambda g: tx.update(g, tx.init(g), g)[0], axis_name="x")(params)
    whole = {name: x.reshape(16, 8) for name, x in params.items()}
    want, _ = jax.jit(RULES["muon"].update)(whole, RULES["muon"].init(whole), whole)
    for name, u in want.items():
        np.testing.assert_allclose(got[name].reshape(16, 8), u, rtol=0, atol=1e-5)


def test_an_axis_that_is_not_there_and_no_mesh():
    params = {"w": jnp.ones((8, 4))}
    tx = spread_matrices(RULES["muon"], "y")
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"^spread_matrices: over names 'y', but there is no mesh: put jax.set_mesh"):
        tx.update(params, state, params)
    for kind in AxisType.Auto, AxisType.Explicit:
        on = mesh(kind, x=8)
        here = jax.device_put(params, NamedSharding(on, P("x")))
        with (
            jax.set_mesh(on),
            pytest.raises(ValueError, match=r"^spread_matrices: over: the mesh has no axis 'y', it has 'x'(\n|$)"),
        ):
            jax.jit(tx.update)(here, state, here)
        run = jax.shard_map(tx.update, mesh=on, in_specs=(P(), P(), P()), out_specs=P())
        with pytest.raises(ValueError, match=r"^spread_matrices: over: the mesh has no axis 'y', it has 'x'(\n|$)"):
            run(params, state, params)


def test_axes_of_two_kinds():
    params = {"w": jnp.ones((8, 4))}
    tx = spread_matrices(RULES["muon"], ("a", "b"))
    run = jax.shard_map(
        tx.update, mesh=mesh(a=4, b=2), in_specs=(P(), P(), P()), out_specs=P(), axis_names={"a"}, check_vma=False
    )
    with pytest.raises(ValueError, match="'a', an axis of the shard_map around the call, and 'b', which is none of it"):
        jax.jit(run)(params, tx.init(params), params)


@pytest.mark.parametrize("over, error", [(3, TypeError), (("x", 3), TypeError), (("x", "x"), ValueError)])
def test_what_over_may_be(over: Any, error: type):
    with pytest.raises(error, match="^spread_matrices: over must "):
        spread_matrices(RULES["muon"], over)
