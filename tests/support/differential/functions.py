# SPDX-License-Identifier: Apache-2.0
"""Cases of schedules, functions of trees, projections, moments, norms, microbatches, curvature and the rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from support.differential import (
    Case,
    Draw,
    Shape,
    array,
    called,
    dtypes,
    find,
    fractions,
    hyperparameters,
    leaf_shapes,
    numbers,
    seeds,
    shapes,
    tree_like,
)

unit, small, rate = numbers(0, 1), numbers(0.01, 1), numbers(0.01, 2)

# Schedules ----------------------------------------------------------------------------------------------------------

steps = st.integers(1, 20)
pieces = st.dictionaries(st.integers(1, 30), small, min_size=1, max_size=3).map(lambda d: dict(sorted(d.items())))
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant_schedule": {"value": rate},
    "cosine_decay_schedule": {"decay_steps": steps, "exponent": numbers(0.5, 2)},
    "cosine_onecycle_schedule": {"transition_steps": st.integers(5, 20)},
    "exponential_decay": {"transition_steps": steps, "transition_begin": st.integers(0, 5), "end_value": None},
    "linear_onecycle_schedule": {
        "transition_steps": st.integers(10, 20),
        "pct_start": numbers(0.2, 0.4),
        "pct_final": numbers(0.6, 0.9),
    },
    "linear_schedule": {"transition_steps": steps, "transition_begin": st.integers(0, 5)},
    "piecewise_constant_schedule": {"boundaries_and_scales": pieces},
    "piecewise_interpolate_schedule": {
        "interpolate_type": st.sampled_from(["linear", "cosine"]),
        "boundaries_and_scales": pieces,
    },
    "polynomial_schedule": {
        "transition_steps": steps,
        "transition_begin": st.integers(0, 5),
        "power": st.sampled_from([0.5, 1.0, 2.0]),
    },
    "warmup_constant_schedule": {"warmup_steps": steps},
    "warmup_cosine_decay_schedule": {
        "warmup_steps": st.integers(1, 9),
        "decay_steps": st.integers(10, 20),
        "peak_value": rate,
        "exponent": st.sampled_from([1.0, 2.0]),
    },
    "warmup_exponential_decay_schedule": {
        "warmup_steps": steps,
        "transition_steps": steps,
        "transition_begin": st.integers(0, 5),
        "end_value": None,
    },
}


def evaluated(schedule: Any, counts: list[int]) -> list[Any]:
    return [np.float32(schedule(jnp.int32(t))) for t in counts]


counts = st.lists(st.integers(0, 40), min_size=4, max_size=4)


def schedule(name: str) -> Case:
    def case(draw: Draw) -> Any:
        make, at = called(name, hyperparameters(draw, name, SCHEDULES[name])), draw(counts)
        return lambda library: evaluated(make(library), at)

    return case


def joined(draw: Draw) -> Any:
    a, b, n, at = draw(rate), draw(rate), draw(steps), draw(counts)
    return lambda lib: evaluated(
        lib.join_schedules(
            [lib.linear_schedule(a, b, n), lib.constant_schedule(b), lib.linear_schedule(b, a, 3)], [n, 25]
        ),
        at,
    )


def restarted(draw: Draw) -> Any:
    cycle = st.fixed_dictionaries(
        {"init_value": small, "peak_value": rate, "warmup_steps": st.integers(1, 4), "decay_steps": st.integers(5, 9)}
    )
    cycles, at = draw(st.lists(cycle, min_size=2, max_size=3)), draw(counts)
    return lambda lib: evaluated(lib.sgdr_schedule(cycles), at)


def wrapped(draw: Draw) -> Any:
    a, b, n = draw(rate), draw(rate), draw(steps)

    def run(lib: Any) -> Any:
        schedule = lib.WrappedSchedule(lib.linear_schedule(a, b, n))
        state, found = schedule.init(), []
        for _ in range(3):
            found.append(np.float32(schedule(state)))
            state = schedule.update(state)
        return found, state

    return run


# Functions of trees -------------------------------------------------------------------------------------------------


def on_trees(name: str, *arguments: str, **options: Any) -> Case:
    """Trees of one layout for "x", "y", "z", fractions for "p", and numbers of the strategies in `options`.

    Dtypes are float32 or, where gradtx keeps them, bfloat16.
    """
    narrow = options.pop("narrow", True)

    def case(draw: Draw) -> Any:
        layout, dtype = leaf_shapes(draw), draw(dtypes) if narrow else np.float32
        given = [
            tree_like(draw, layout, dtype, ties=True) if a in ("x", "y", "z") else draw(options[a]) for a in arguments
        ]
        named = {n: draw(s) for n, s in options.items() if n not in arguments}
        return lambda library: find(library, name)(*given, **named)

    return case


def states(draw: Draw, which: Callable[[Any, Any, Draw], Any]) -> Any:
    """A function of the state of Adam in a chain."""
    layout = leaf_shapes(draw)
    params = tree_like(draw, layout)

    def run(library: Any) -> Any:
        tx = library.chain(library.scale_by_adam(), library.trace(0.9))
        return which(library, tx, tx.init(params))

    return run


def got(draw: Draw) -> Any:
    key = draw(st.sampled_from(["count", "mu", "trace", "missing"]))
    return states(draw, lambda lib, tx, state: lib.tree.get(state, key, 3.0))


def got_with_paths(draw: Draw) -> Any:
    key = draw(st.sampled_from(["count", "mu", "nu", "missing"]))

    def which(lib: Any, tx: Any, state: Any) -> Any:
        found = lib.tree.get_all_with_path(state, key)
        return [value for _, value in found], {str(path): 0 for path, _ in found}

    return states(draw, which)


def changed(draw: Draw) -> Any:
    value = draw(st.integers(0, 9))
    return states(draw, lambda lib, tx, state: lib.tree.set(state, count=jnp.int32(value)))


def mapped(draw: Draw) -> Any:
    factor = draw(small)

    def which(lib: Any, tx: Any, state: Any) -> Any:
        return lib.tree.map_params(tx, lambda p: p + factor, state, transform_non_params=lambda x: x + 1)

    return states(draw, which)


def moment(name: str, *orders: float, rank: int = 0) -> Case:
    def case(draw: Draw) -> Any:
        layout, decay = leaf_shapes(draw, rank), draw(numbers(0, 0.9))
        g, m = tree_like(draw, layout, ties=True), jax.tree.map(jnp.abs, tree_like(draw, layout))
        rest = draw(st.sampled_from(orders)) if orders else draw(small)
        return lambda library: find(library, name)(g, m, decay, rest)

    return case


def corrected(draw: Draw) -> Any:
    layout, decay, count = leaf_shapes(draw), draw(numbers(0.1, 0.9)), draw(st.integers(1, 50))
    m = tree_like(draw, layout)
    return lambda lib: lib.bias_correction(m, decay, jnp.int32(count))


def random_trees(draw: Draw) -> Any:
    layout, key, dtype = leaf_shapes(draw), jax.random.key(draw(seeds)), draw(dtypes)
    sampler = draw(st.sampled_from([jax.random.normal, jax.random.uniform, jax.random.rademacher]))
    tree = tree_like(draw, layout)
    return lambda lib: lib.tree.random_like(key, tree, sampler, dtype=dtype)


def split(draw: Draw) -> Any:
    key, tree = jax.random.key(draw(seeds)), tree_like(draw, leaf_shapes(draw))
    return lambda lib: lib.tree.split_key_like(key, tree)


def unwrapped(draw: Draw) -> Any:
    tree = {"key": jax.random.key(draw(seeds)), "rest": tree_like(draw, leaf_shapes(draw))}
    return lambda lib: lib.tree.unwrap_random_key_data(tree)


def mixed_dtypes(draw: Draw) -> Any:
    a, b = draw(dtypes), draw(dtypes)
    handler = draw(st.sampled_from(["promote", "highest", "lowest"]))
    tree = {"a": array(draw, (2,), a), "b": array(draw, (), b)}
    return lambda lib: jnp.zeros([], lib.tree.dtype(tree, handler))


def cast_like(draw: Draw) -> Any:
    layout, a, b = leaf_shapes(draw), draw(dtypes), draw(dtypes)
    x, y = tree_like(draw, layout, a), tree_like(draw, layout, b)
    return lambda lib: lib.tree.cast_like(x, y)


def complex_trees(name: str) -> Case:
    def case(draw: Draw) -> Any:
        layout = leaf_shapes(draw)
        tree = jax.tree.map(jax.lax.complex, tree_like(draw, layout), tree_like(draw, layout))
        return lambda library: find(library, name)(tree)

    return case


def close_trees(draw: Draw) -> Any:
    layout, near = leaf_shapes(draw), draw(st.sampled_from([0.0, 1e-6, 1e-3]))
    x = tree_like(draw, layout)
    y = jax.tree.map(lambda a: a * (1 + near), x)
    return lambda lib: jnp.asarray(lib.tree.allclose(x, y, rtol=1e-4))


def batched(draw: Draw) -> Any:
    tree, shape = tree_like(draw, leaf_shapes(draw)), draw(st.sampled_from([(), (2,), (3, 1)]))
    return lambda lib: lib.tree.batch_shape(tree, shape)


def chosen(draw: Draw) -> Any:
    layout = leaf_shapes(draw)
    x, y = tree_like(draw, layout), tree_like(draw, layout)
    condition = jnp.asarray(draw(st.booleans()))
    return lambda lib: lib.tree.where(condition, x, y)


# Targets, norms, clipping of examples -------------------------------------------------------------------------------


def followed(name: str) -> Case:
    def case(draw: Draw) -> Any:
        layout = leaf_shapes(draw)
        new, old, size, at, period = (
            tree_like(draw, layout),
            tree_like(draw, layout),
            draw(unit),
            draw(st.integers(0, 9)),
            draw(st.integers(1, 4)),
        )
        if name == "incremental_update":
            return lambda lib: lib.incremental_update(new, old, size)
        return lambda lib: lib.periodic_update(new, old, jnp.int32(at), period)

    return case


def applied(draw: Draw) -> Any:
    layout, dtype = leaf_shapes(draw), draw(dtypes)
    params, updates = tree_like(draw, layout, dtype), tree_like(draw, layout)
    return lambda lib: lib.apply_updates(params, updates)


def safe_norm(draw: Draw) -> Any:
    x, low = array(draw, draw(st.sampled_from([(3,), (2, 3), (4, 1)]))), draw(numbers(0, 2))
    axis, order, keep = (
        draw(st.sampled_from([None, 0, -1])),
        draw(st.sampled_from([None, 1, 2, jnp.inf])),
        draw(st.booleans()),
    )
    if axis is None and x.ndim > 1:
        order = None
    return lambda lib: lib.safe_norm(x, low, order, axis, keep)


def safe_rms(draw: Draw) -> Any:
    x, low = array(draw, draw(shapes)), draw(numbers(0.01, 2))
    return lambda lib: lib.safe_root_mean_squares(x, low)


def unit_norm(draw: Draw) -> Any:
    x = array(draw, draw(st.sampled_from([(), (1,), (3,), (2, 3), (4, 1), (2, 1, 3), (2, 1, 1, 3)])))
    return lambda lib: lib.transforms.unitwise_norm(x)


def unit_clip(draw: Draw) -> Any:
    x, limit = array(draw, (2, 3), ties=False), fractions(draw, (2, 3))
    return lambda lib: lib.transforms.unitwise_clip(lib.transforms.unitwise_norm(x), limit, x)


def per_example(name: str) -> Case:
    def case(draw: Draw) -> Any:
        shapes = draw(st.sampled_from([[(3, 2)], [(3,), (3, 2, 1)]]))
        grads = [array(draw, s, ties=False) for s in shapes]
        limit, uniform = draw(small), draw(st.booleans())
        rest = (uniform,) if "layer" in name else ()
        return lambda library: find(library, name)(grads, limit, *rest)

    return case


def skipped(name: str) -> Case:
    def case(draw: Draw) -> Any:
        g = tree_like(draw, leaf_shapes(draw), scale=draw(st.sampled_from([1.0, 10.0, np.inf])))
        rest = (draw(numbers(0.1, 20)),) if "large" in name else ()
        return lambda library: find(library, name)(g, jnp.int32(3), g, *rest)

    return case


def gradient_of_scaled(draw: Draw) -> Any:
    tree, factor = tree_like(draw, leaf_shapes(draw)), draw(numbers(-2, 2))
    return lambda lib: jax.grad(
        lambda x: sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(lib.scale_gradient(x, factor)))
    )(tree)


def normal_density(draw: Draw) -> Any:
    shape = draw(st.sampled_from([(3,), (2, 3)]))
    loc, scale, x = (array(draw, shape, ties=False) for _ in range(3))
    key = jax.random.key(draw(seeds))

    def run(lib: Any) -> Any:
        d = lib.multi_normal(loc, scale)
        return d.log_prob(x), d.sample((4,), key), d.params

    return run


def counted(draw: Draw) -> Any:
    count = draw(st.integers(0, 10) | st.just(2**31 - 1))
    return lambda lib: lib.safe_increment(jnp.int32(count))


def stored_value_and_grad(draw: Draw) -> Any:
    """At the first call, when the state has no gradient, and at the second, when it has."""
    params = array(draw, (3,), ties=False)

    def run(lib: Any) -> Any:
        def f(x: Any) -> Any:
            return jnp.sum(x**2)

        tx = lib.chain(lib.sgd(0.3), lib.scale_by_backtracking_linesearch(5, store_grad=True))
        state, p, found = tx.init(params), params, []
        for _ in range(2):
            value, grad = lib.value_and_grad_from_state(f)(p, state=state)
            updates, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=f)
            p = lib.apply_updates(p, updates)
            found.append((value, grad, p))
        return found

    return run


def nothing(draw: Draw) -> Any:
    return lambda lib: [str(type(lib.init_empty_state({"a": 1.0})) is lib.EmptyState) == "True"]


# Projections, perturbations, assignment -----------------------------------------------------------------------------


def projection(name: str) -> Case:
    """On vectors and trees; a scale of 0 is left to tests/test_projections.py."""

    def case(draw: Draw) -> Any:
        layout = Shape(draw(shapes)) if name.endswith("hypercube") else leaf_shapes(draw)
        x, size = tree_like(draw, layout, ties=True), draw(numbers(0.1, 3))
        return lambda library: find(library, name)(x, size)

    return case


def on_vectors(name: str) -> Case:
    def case(draw: Draw) -> Any:
        layout = leaf_shapes(draw)
        x, a = tree_like(draw, layout, ties=True), tree_like(draw, layout)
        rest = () if name.endswith("vector") else (draw(numbers(-2, 2)),)
        return lambda library: find(library, name)(x, a, *rest)

    return case


def boxed(draw: Draw) -> Any:
    layout = leaf_shapes(draw)
    x, low = tree_like(draw, layout, ties=True), tree_like(draw, layout)
    high = jax.tree.map(lambda a: a + 0.5, low)
    return lambda lib: lib.projections.projection_box(x, low, high)


def not_negative(draw: Draw) -> Any:
    x = tree_like(draw, leaf_shapes(draw), ties=True)
    return lambda lib: lib.projections.projection_non_negative(x)


def perturbed(draw: Draw) -> Any:
    x, key = array(draw, (3,), ties=False), jax.random.key(draw(seeds))
    sigma, baseline, noise = draw(small), draw(st.booleans()), draw(st.sampled_from(["Gumbel", "Normal"]))

    def run(lib: Any) -> Any:
        source = getattr(lib.perturbations, noise)()
        f = lib.perturbations.make_perturbed_fun(lambda y: jnp.sort(y) * y, 8, sigma, source, baseline)
        return f(key, x), jax.jacrev(f, 1)(key, x)

    return run


def noise(name: str) -> Case:
    def case(draw: Draw) -> Any:
        x, key = array(draw, draw(st.sampled_from([(3,), (2, 3)]))), jax.random.key(draw(seeds))
        return lambda library: (
            find(library, name)().log_prob(x),
            find(library, name)().sample(key, (3,), jnp.float32),
        )

    return case


def assigned(name: str) -> Case:
    """The cost of the best assignment; which one is best is not unique where costs are equal."""

    def case(draw: Draw) -> Any:
        costs = array(draw, draw(st.sampled_from([(1, 3), (3, 3), (4, 2)])))

        def run(library: Any) -> Any:
            i, j = find(library, name)(costs)
            return jnp.sum(costs[i, j]), jnp.sort(i)[:0]

        return run

    return case


# Microbatches, curvature, linear algebra ----------------------------------------------------------------------------


def loss(w: Any, x: Any, y: Any) -> Any:
    return jnp.mean((jnp.tanh(x @ w) - y) ** 2)


def regression(draw: Draw) -> tuple[Any, Any, Any]:
    return tuple(array(draw, shape, ties=False) for shape in [(2,), (6, 2), (6,)])  # type: ignore[return-value]


kinds = st.sampled_from(["MEAN", "SUM", "RUNNING_MEAN", "CONCAT"])
sizes = st.sampled_from([1, 2, 3, 6])


def microbatched(draw: Draw) -> Any:
    w, x, y = regression(draw)
    size, kind = draw(sizes), draw(kinds)
    f = (lambda x, y: x @ w - y) if kind == "CONCAT" else (lambda x, y: loss(w, x, y))
    return lambda lib: lib.microbatching.microbatch(f, (0, 1), size, getattr(lib.microbatching.AccumulationType, kind))(
        x, y
    )


def micro_gradient(draw: Draw) -> Any:
    w, x, y = regression(draw)
    size = draw(sizes)
    return lambda lib: lib.microbatching.micro_grad(loss, batch_argnums=(1, 2), microbatch_size=size)(w, x, y)[0]


def micro_mapped(draw: Draw) -> Any:
    w, x, y = regression(draw)
    size = draw(sizes)
    return lambda lib: lib.microbatching.micro_vmap(
        lambda w, x, y: jnp.sin(x @ w) - y, in_axes=(None, 0, 0), microbatch_size=size
    )(w, x, y)


def reshaped(draw: Draw) -> Any:
    tree, size, axis = {"x": array(draw, (6, 4))}, draw(st.sampled_from([1, 2])), draw(st.integers(0, 1))
    return lambda lib: lib.microbatching.reshape_batch_axis(tree, size, axis)


def curvature(name: str) -> Case:
    def case(draw: Draw) -> Any:
        w, x, y = regression(draw)
        v = array(draw, (2,), ties=False)
        first = (v,) if name.endswith("hvp") else ()
        return lambda library: find(library, name)(loss, *first, w, x, y)

    return case


def positive_definite(draw: Draw) -> Any:
    a = array(draw, (3, 3), ties=False)
    return a @ a.T + jnp.eye(3)


def inverse_root(draw: Draw) -> Any:
    matrix, p = positive_definite(draw), draw(st.sampled_from([1, 2, 4]))
    return lambda lib: lib.matrix_inverse_pth_root(matrix, p)[0]


def largest_eigenvalue(draw: Draw) -> Any:
    matrix, start = positive_definite(draw), jnp.ones(3)
    return lambda lib: lib.power_iteration(matrix, v0=start, num_iters=100)[0]


def least_squares(draw: Draw) -> Any:
    a, b = array(draw, (4, 2), ties=False), array(draw, (4,), ties=False)
    return lambda lib: lib.nnls(a, b, iters=500)


def over_trees() -> dict[str, Case]:
    two, one = ("x", "y"), ("x",)
    return {
        "tree.add": on_trees("tree.add", "x", "y", "z"),
        "tree.sub": on_trees("tree.sub", *two),
        "tree.mul": on_trees("tree.mul", *two),
        "tree.div": on_trees("tree.div", *two),
        "tree.vdot": on_trees("tree.vdot", *two),
        "tree.add_scale": on_trees("tree.add_scale", "x", "s", "y", s=rate),
        "tree.scale": on_trees("tree.scale", "s", "x", s=rate),
        "tree.clip": on_trees("tree.clip", "x", "low", "high", low=numbers(-1, 0), high=unit),
        "tree.cast": on_trees("tree.cast", "x", "d", d=dtypes),
        "tree.sum": on_trees("tree.sum", *one),
        "tree.max": on_trees("tree.max", *one),
        "tree.min": on_trees("tree.min", *one),
        "tree.size": on_trees("tree.size", *one),
        "tree.norm": on_trees("tree.norm", "x", ord=st.sampled_from([None, 1, 2, jnp.inf]), squared=st.just(False)),
        "global_norm": on_trees("global_norm", *one),
        "tree.zeros_like": on_trees("tree.zeros_like", "x", dtype=st.none() | dtypes),
        "tree.ones_like": on_trees("tree.ones_like", "x", dtype=st.none() | dtypes),
        "tree.full_like": on_trees("tree.full_like", "x", "s", s=rate, dtype=st.none() | dtypes),
        "tree.conj": complex_trees("tree.conj"),
        "tree.real": complex_trees("tree.real"),
        "tree.where": chosen,
        "tree.allclose": close_trees,
        "tree.batch_shape": batched,
        "tree.cast_like": cast_like,
        "tree.dtype": mixed_dtypes,
        "tree.random_like": random_trees,
        "tree.split_key_like": split,
        "tree.unwrap_random_key_data": unwrapped,
        "tree.get": got,
        "tree.get_all_with_path": got_with_paths,
        "tree.set": changed,
        "tree.map_params": mapped,
        "bias_correction": corrected,
        "update_moment": moment("update_moment", 1, 2, 3),
        "update_moment_per_elem_norm": moment("update_moment_per_elem_norm", 2, 4),
        "update_infinity_moment": moment("update_infinity_moment"),
    }


BALLS = ["l1_ball", "l1_sphere", "l2_ball", "l2_sphere", "linf_ball", "simplex", "hypercube"]
CASES: dict[str, Case] = {
    **{name: schedule(name) for name in SCHEDULES},
    "join_schedules": joined,
    "sgdr_schedule": restarted,
    "WrappedSchedule": wrapped,
    **over_trees(),
    **{n: projection(n) for n in (f"projections.projection_{ball}" for ball in BALLS)},
    **{n: on_vectors(n) for n in (f"projections.projection_{s}" for s in ("vector", "hyperplane", "halfspace"))},
    "projections.projection_box": boxed,
    "projections.projection_non_negative": not_negative,
    "incremental_update": followed("incremental_update"),
    "periodic_update": followed("periodic_update"),
    "apply_updates": applied,
    "safe_norm": safe_norm,
    "safe_root_mean_squares": safe_rms,
    "transforms.unitwise_norm": unit_norm,
    "transforms.unitwise_clip": unit_clip,
    "per_example_global_norm_clip": per_example("per_example_global_norm_clip"),
    "per_example_layer_norm_clip": per_example("per_example_layer_norm_clip"),
    "skip_large_updates": skipped("skip_large_updates"),
    "skip_not_finite": skipped("skip_not_finite"),
    "scale_gradient": gradient_of_scaled,
    "multi_normal": normal_density,
    "safe_increment": counted,
    "value_and_grad_from_state": stored_value_and_grad,
    "init_empty_state": nothing,
    "perturbations.make_perturbed_fun": perturbed,
    "perturbations.Gumbel": noise("perturbations.Gumbel"),
    "perturbations.Normal": noise("perturbations.Normal"),
    "assignment.hungarian_algorithm": assigned("assignment.hungarian_algorithm"),
    "assignment.base_hungarian_algorithm": assigned("assignment.base_hungarian_algorithm"),
    "microbatching.microbatch": microbatched,
    "microbatching.micro_grad": micro_gradient,
    "microbatching.micro_vmap": micro_mapped,
    "microbatching.reshape_batch_axis": reshaped,
    "second_order.hvp": curvature("second_order.hvp"),
    "second_order.hessian_diag": curvature("second_order.hessian_diag"),
    "second_order.fisher_diag": curvature("second_order.fisher_diag"),
    "matrix_inverse_pth_root": inverse_root,
    "power_iteration": largest_eigenvalue,
    "nnls": least_squares,
}
