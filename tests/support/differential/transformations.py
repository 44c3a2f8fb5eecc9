# SPDX-License-Identifier: Apache-2.0
"""Cases of transformations: three steps with random gradients, compared with the layout of the state."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from hypothesis import strategies as st

from gradtx.compat import optax as compat
from gradtx.core._calls import Factory
from support.differential import (
    SHAPES,
    By,
    Case,
    Draw,
    Shape,
    called,
    find,
    hyperparameters,
    leaf_shapes,
    matrices,
    numbers,
    seeds,
    tree_like,
)

STEPS = 3


def halving(count):
    return 0.3 / (1 + count)


def every_second(step):
    return step % 2 == 1


def negated(updates, params):
    return jax.tree.map(lambda g: -g, updates)


def negated_leaf(g, p):
    return -g


def squares(tree, **rest):
    return sum(jnp.sum(x * x) for x in jax.tree.leaves(tree))


def waves(tree, **rest):
    """A loss that no line search minimizes exactly, after which steps would be of rounding errors."""
    return sum(jnp.sum(x * x + 0.3 * jnp.cos(2 * x + 0.5)) for x in jax.tree.leaves(tree))


def by_rank(tree):
    return jax.tree.map(lambda p: "matrix" if jnp.ndim(p) > 1 else "rest", tree)


ADAM = By(lambda library: library.adam(0.1, 0.8, 0.9, 1e-3))
SGD = By(lambda library: library.sgd(0.1, 0.8))
CHAIN = By(lambda library: library.chain(library.clip_by_global_norm(1.0), library.adam(0.1, 0.8, 0.9, 1e-3)))
inner = st.sampled_from([ADAM, SGD, CHAIN])
keys = seeds.map(jax.random.key)
rates = st.one_of(numbers(0.01, 1), st.just(halving))
positive = numbers(0.01, 1)

# What the annotations do not tell, and what is kept from where the libraries differ: see RESTRICTED.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "adadelta": {"learning_rate": rates},
    "adafactor": {"learning_rate": rates, "decay_offset": 0, "min_dim_size_to_factor": st.integers(1, 3)},
    "adan": {"b2": 0.5},
    "add_noise": {"key": keys, "seed": None},
    "amsgrad": {"learning_rate": rates},
    "apply_if_finite": {"inner": inner},
    "conditionally_mask": {"inner": inner, "should_transform_fn": every_second, "forward_extra_args": False},
    "conditionally_transform": {"inner": inner, "should_transform_fn": every_second, "forward_extra_args": False},
    "contrib.dadapt_adamw": {"betas": st.tuples(numbers(0, 0.9), numbers(0, 0.9)), "estim_lr0": numbers(0.1, 1)},
    "contrib.differentially_private_aggregate": {"key": keys, "seed": None},
    "contrib.dog": {"init_step": st.tuples(st.sampled_from(["distance", "learning_rate", "heuristic"]), positive)},
    "contrib.dpsgd": {"seed": seeds, "nesterov": st.booleans()},
    "contrib.galore": {"base_optimizer": None},
    "contrib.mechanize": {"base_optimizer": inner},
    "contrib.momo": {"weight_decay": 0.0},
    "contrib.momo_adam": {"weight_decay": 0.0},
    "contrib.muon": {
        "adaptive": False,
        "eps": 1e-8,
        "ns_coeffs": (3.4445, -4.775, 2.0315),
        "ns_steps": st.integers(1, 5),
    },
    "contrib.prodigy": {"betas": st.tuples(numbers(0, 0.9), numbers(0, 0.9)), "estim_lr0": numbers(0.1, 1)},
    "contrib.sam": {
        "optimizer": inner,
        "adv_optimizer": By(lambda library: library.chain(library.contrib.normalize(), library.sgd(0.05))),
        "sync_period": st.integers(2, 4),
        "opaque_mode": False,
    },
    "contrib.scale_by_muon": {
        "weight_dimension_numbers": By(lambda library: dict.fromkeys("ab", library.contrib.MuonDimensionNumbers(0, 1))),
        "adaptive": False,
        "eps": 1e-8,
        "ns_coeffs": (3.4445, -4.775, 2.0315),
        "ns_steps": st.integers(1, 5),
    },
    "contrib.schedule_free": {"base_optimizer": inner, "learning_rate": positive},
    "contrib.schedule_free_adamw": {"warmup_steps": None, "learning_rate": positive},
    "contrib.schedule_free_sgd": {"warmup_steps": None, "learning_rate": positive},
    "contrib.split_real_and_imaginary": {"inner": inner},
    "flatten": {"inner": inner},
    "freeze": {"mask": matrices},
    "lars": {"weight_decay": 0.0},
    "masked": {"inner": inner, "mask": matrices, "mask_compatible_extra_args": st.booleans()},
    "multi_transform": {
        "transforms": By(lambda library: {"matrix": library.adam(0.1), "rest": library.sgd(0.1)}),
        "param_labels": by_rank,
    },
    "noisy_sgd": {"key": keys, "seed": None},
    "polyak_sgd": {"scaling": 1.0},
    "scale_by_backtracking_linesearch": {"max_backtracking_steps": st.integers(10, 20)},
    "rmsprop": {"momentum": numbers(0, 0.9)},
    "scale_by_adan": {"b2": 0.5},
    "scale_by_factored_rms": {"step_offset": 0, "min_dim_size_to_factor": st.integers(1, 3)},
    "scale_by_learning_rate": {"learning_rate": rates},
    "scale_by_schedule": {"step_size_fn": halving},
    "scale_by_yogi": {"initial_accumulator_value": 0.0},
    "selective_transform": {"optimizer": inner, "freeze_mask": {"b": [False], "a": {"w": True}}},
    "sgd": {"learning_rate": rates, "momentum": numbers(0, 0.9)},
    "stateless": {"f": negated},
    "stateless_with_tree_map": {"f": negated_leaf},
    "transforms.snapshot": {"measure_name": "squares", "measure": squares},
}
"""Arguments that the annotations do not tell, and those for which both libraries have the same formula."""

RESTRICTED = {
    "adafactor": "`adafactor(decay_offset=n)`",
    "adan": "`adan`",
    "contrib.muon": "`muon(adaptive=True)`",
    "contrib.scale_by_muon": "`muon(adaptive=True)`",
    "contrib.momo": "`momo`, `momo_adam` with weight decay",
    "contrib.momo_adam": "`momo`, `momo_adam` with weight decay",
    "contrib.sam": "`sam(sync_period=1)`",
    "contrib.schedule_free": "`schedule_free` with a schedule",
    "contrib.schedule_free_adamw": "`schedule_free_sgd`, `schedule_free_adamw` with `warmup_steps=T`",
    "contrib.schedule_free_sgd": "`schedule_free_sgd`, `schedule_free_adamw` with `warmup_steps=T`",
    "lars": "`lars` with weight decay",
    "polyak_sgd": "`polyak_sgd(scaling=s)`",
    "rmsprop": "**Hyperparameters**",
    "scale_by_adan": "`adan`",
    "scale_by_distance_over_gradients": "`scale_by_distance_over_gradients`",
    "scale_by_factored_rms": "`adafactor(decay_offset=n)`",
    "scale_by_sm3": "`sm3`",
    "scale_by_yogi": "`yogi`",
    "selective_transform": "`selective_transform(freeze_mask=function)`",
    "sgd": "**Hyperparameters**",
    "sm3": "`sm3`",
}
"""Why some arguments or shapes of those are left out: the row of docs/differences.md."""

SMALLEST_RANK = {"scale_by_distance_over_gradients": 1, "scale_by_sm3": 1, "sm3": 1}
LINES = {"scale_by_backtracking_linesearch", "scale_by_lbfgs"}
VALUED = LINES | {"contrib.momo", "contrib.momo_adam", "contrib.reduce_on_plateau", "polyak_sgd", "scale_by_polyak"}
"""Their update takes the value of the loss."""
PER_EXAMPLE = {"contrib.differentially_private_aggregate", "contrib.dpsgd"}
"""Their gradients have an axis of examples in front."""


def layout(state: Any) -> Any:
    """Shapes and dtypes of a state by names, empty parts too: what a checkpoint holds."""
    if state is None or hasattr(state, "dtype"):
        return state if state is None else (state.shape, str(state.dtype))
    if hasattr(state, "_fields"):
        return {name: layout(getattr(state, name)) for name in state._fields}
    if isinstance(state, dict):
        return {key: layout(x) for key, x in state.items()}
    return [layout(x) for x in state]


def stepped(make: Any, params: Any, gradients: list[Any], value: float, valued: bool = False) -> Any:
    """The updates of all steps, the same parameters for both libraries, and the layouts of the first and last state."""

    def run(library: Any) -> Any:
        tx = library.with_extra_args_support(make(library))
        state, p, found = tx.init(params), params, []
        layouts = [layout(state)]
        for i, g in enumerate(gradients):
            if g is None:
                g = jax.grad(waves)(p)
            extra = {"value": jnp.float32(value / (i + 1)), "grad": g, "value_fn": waves}
            if gradients[0] is None:
                extra["value"] = waves(p)
            updates, state = tx.update(g, state, p, **(extra if valued else {}))
            found.append(updates)
            if gradients[0] is None:
                p = optax.apply_updates(p, updates)
            else:
                p = jax.tree.map(lambda x, d: x - 0.1 * d, p, g)
        return found, [*layouts, layout(state)]

    return run


def transformation(name: str) -> Case:
    def case(draw: Draw) -> Any:
        given = hyperparameters(draw, name, ARGUMENTS.get(name, {}))
        shapes = leaf_shapes(draw, SMALLEST_RANK.get(name, 0))
        if name == "contrib.scale_by_muon":
            shapes = {"a": Shape((2, 3)), "b": Shape((4, 1))}
        if name == "selective_transform":
            shapes = leaf_shapes_of_mask(draw)
        params = tree_like(draw, shapes)
        gradients: list[Any] = [tree_like(draw, shapes) for _ in range(STEPS)]
        if name in LINES:
            gradients = [None] * STEPS
        if name in PER_EXAMPLE:
            gradients = [jax.tree.map(lambda g: jnp.stack([g, 3 * g, -g]), tree) for tree in gradients]
            return updates_only(called(name, given), params, gradients)
        make = called(name, given)
        if name.endswith("linesearch"):
            return stepped(downhill(make), params, gradients, 0.0, True)
        return stepped(make, params, gradients, draw(numbers(0.5, 3)), name in VALUED)

    return case


def downhill(make: Any) -> Any:
    """A line search along the negative gradient."""
    return lambda library: library.chain(library.sgd(1.0), make(library))


def updates_only(make: Any, params: Any, gradients: list[Any]) -> Any:
    def run(library: Any) -> Any:
        tx = make(library)
        state, found = tx.init(params), []
        layouts = [layout(state)]
        for g in gradients:
            updates, state = tx.update(g, state, params)
            found.append(updates)
        return found, [*layouts, layout(state)]

    return run


def leaf_shapes_of_mask(draw: Draw) -> Any:
    first, second = (Shape(draw(st.sampled_from(SHAPES))) for _ in range(2))
    return {"b": [first], "a": {"w": second}}


def composed(make: Any) -> Case:
    """A case of a function that makes transformations from others."""

    def case(draw: Draw) -> Any:
        shapes = leaf_shapes(draw)
        params = tree_like(draw, shapes)
        gradients = [tree_like(draw, shapes) for _ in range(STEPS)]
        return stepped(make(draw), params, gradients, draw(numbers(0.5, 3)))

    return case


def chained(draw: Draw) -> Any:
    a, b = draw(numbers(0.1, 0.9)), draw(positive)
    return lambda lib: lib.chain(lib.trace(a), lib.clip(b), lib.scale(-b))


def named(draw: Draw) -> Any:
    a, b = draw(numbers(0.1, 0.9)), draw(positive)
    return lambda lib: lib.named_chain(("first", lib.trace(a)), ("second", lib.scale(-b)))


def injected(name: str) -> Any:
    def make(draw: Draw) -> Any:
        rate, b1, eps = draw(rates), draw(numbers(0.1, 0.9)), draw(positive)
        return lambda lib: getattr(lib, name)(lib.adam)(learning_rate=rate, b1=b1, b2=0.9, eps=eps)

    return make


def accumulated(draw: Draw) -> Any:
    tx, k, mean = draw(inner), draw(st.integers(1, 3)), draw(st.booleans())
    return lambda lib: lib.MultiSteps(tx.make(lib), k, mean).gradient_transformation()


def supported(draw: Draw) -> Any:
    tx = draw(inner)
    return lambda lib: lib.with_extra_args_support(tx.make(lib))


def monitored(draw: Draw) -> Any:
    decay = draw(numbers(0.1, 0.9))
    return lambda lib: lib.measure_with_ema(squares, decay)


def ahead(draw: Draw) -> Any:
    tx, period, size, reset = draw(inner), draw(st.integers(1, 3)), draw(positive), draw(st.booleans())
    shapes = leaf_shapes(draw)
    params, gradients = tree_like(draw, shapes), [tree_like(draw, shapes) for _ in range(STEPS)]

    def run(lib: Any) -> Any:
        wrapper = lib.lookahead(tx.make(lib), period, size, reset)
        pair = lib.LookaheadParams.init_synced(params)
        state, found = wrapper.init(pair), []
        for g in gradients:
            updates, state = wrapper.update(g, state, pair)
            pair = lib.apply_updates(pair, updates)
            found.append(tuple(pair))
        return found, layout(state.fast_state)

    return run


def evaluated(draw: Draw) -> Any:
    """Parameters after three steps of Schedule-Free, as it averages them."""
    rate, b1, shapes = draw(positive), draw(numbers(0.1, 0.9)), leaf_shapes(draw)
    params, gradients = tree_like(draw, shapes), [tree_like(draw, shapes) for _ in range(STEPS)]

    def run(lib: Any) -> Any:
        tx = lib.contrib.schedule_free(lib.sgd(rate), rate, b1)
        state, p = tx.init(params), params
        for g in gradients:
            updates, state = tx.update(g, state, p)
            p = lib.apply_updates(p, updates)
        return lib.contrib.schedule_free_eval_params(state, p)

    return run


def measured(draw: Draw) -> Any:
    """What is measured after each update; before the first there is nothing to measure."""
    name = draw(st.sampled_from(["snapshot", "monitor", "measure_with_ema"]))
    decay, debias, shapes = draw(numbers(0.1, 0.9)), draw(st.booleans()), leaf_shapes(draw)
    params, gradients = tree_like(draw, shapes), [tree_like(draw, shapes) for _ in range(STEPS)]

    def run(lib: Any) -> Any:
        average = lib.measure_with_ema(squares, decay, debias)
        if name == "measure_with_ema":
            tx = average
        elif name == "snapshot":
            tx = lib.snapshot("norm", squares)
        else:
            tx = lib.monitor({"now": squares, "slow": average})
        state, found = tx.init(params), []
        for g in gradients:
            updates, state = tx.update(g, state, params)
            found.append((updates, jax.tree.leaves(state)))
        return found, layout(state)

    return run


COMPOSED: dict[str, Case] = {
    "chain": composed(chained),
    "named_chain": composed(named),
    "inject_hyperparams": composed(injected("inject_hyperparams")),
    "inject_stateful_hyperparams": composed(injected("inject_stateful_hyperparams")),
    "MultiSteps": composed(accumulated),
    "with_extra_args_support": composed(supported),
    "lookahead": ahead,
    "contrib.schedule_free_eval_params": evaluated,
    "snapshot": measured,
    "monitor": measured,
    "measure_with_ema": measured,
}


def is_transformation(name: str) -> bool:
    record = getattr(find(compat, name), "factory", None)
    return isinstance(record, Factory) and "GradientTransformation" in str(record.signature.return_annotation)
