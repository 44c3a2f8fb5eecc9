# SPDX-License-Identifier: Apache-2.0
"""Cases of aggregators of gradients of single elements: the updates of some calls, states aside."""

from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import strategies as st

from support.differential import Case, Draw, Shape, find, leaf_shapes, numbers, tree_like

PLACE = "experimental.aggregating"
ELEMENTS = 3


def drawn(draw: Draw, axis: int | None, calls: int) -> list:
    """Trees of gradients with an axis of elements, in front or at the end; without one, trees like parameters."""
    layout = leaf_shapes(draw)

    def with_elements(shape: Shape) -> Shape:
        return Shape((ELEMENTS, *shape) if axis == 0 else (*shape, ELEMENTS) if axis == -1 else shape)

    shapes = jax.tree.map(with_elements, layout, is_leaf=lambda x: isinstance(x, Shape))
    return [tree_like(draw, shapes) for _ in range(calls)]


def parameters(gradients: Any, axis: int | None) -> Any:
    return gradients if axis is None else jax.tree.map(lambda g: jnp.zeros_like(jnp.take(g, 0, axis)), gradients)


def updates_of(tx: Any, calls: list, params: Any, **extra: Any) -> list:
    state, found = tx.init(params), []
    for gradients in calls:
        updates, state = tx.update(gradients, state, params, **extra)
        found.append(updates)
    return found


axes = st.sampled_from([0, -1])
rounds = st.integers(1, 3)


def accumulated(draw: Draw) -> Any:
    k, calls = draw(rounds), drawn(draw, None, 4)
    return lambda lib: updates_of(find(lib, PLACE).accumulate_avg_updates(k), calls, parameters(calls[0], None))


def averaged(draw: Draw) -> Any:
    axis = draw(axes)
    calls = drawn(draw, axis, 2)
    return lambda lib: updates_of(find(lib, PLACE).average_per_element_updates(axis), calls, parameters(calls[0], axis))


def with_rounds(name: str) -> Case:
    def case(draw: Draw) -> Any:
        axis, k = draw(axes), draw(rounds)
        calls = drawn(draw, axis, 4)
        return lambda lib: updates_of(getattr(find(lib, PLACE), name)(axis, k), calls, parameters(calls[0], axis))

    return case


def tracked(draw: Draw) -> Any:
    """The debiased averages after each call."""
    decay, size, calls = draw(numbers(0.1, 0.9)), draw(st.integers(2, 9)), drawn(draw, None, 3)
    squares = [jax.tree.map(jnp.square, g) for g in calls]

    def run(lib: Any) -> Any:
        place = find(lib, PLACE)
        tx = place.track_per_element_mean_and_variance_with_ema(decay)
        state, found = tx.init(calls[0]), []
        for g, s in zip(calls, squares, strict=True):
            updates, state = tx.update(g, state, calls[0], sum_sq_diff_grads=s, sample_size=jnp.int32(size))
            found.append((updates, place.get_unbiased_mean_and_variance_ema(state)))
        return found

    return run


def beside_an_optimizer(draw: Draw) -> Any:
    axis, k, decay, rate = draw(axes), draw(rounds), draw(numbers(0.1, 0.9)), draw(numbers(0.01, 1))
    calls = drawn(draw, axis, 4)

    def run(lib: Any) -> Any:
        tx = find(lib, PLACE).add_mean_variance_to_opt(lib.sgd(rate, momentum=0.5), decay, axis, k)
        return updates_of(tx, calls, parameters(calls[0], axis))

    return run


def processed(draw: Draw) -> Any:
    axis, k, limit, rate = draw(axes), draw(rounds), draw(numbers(0.1, 2)), draw(numbers(0.01, 1))
    calls = drawn(draw, axis, 4)

    def run(lib: Any) -> Any:
        place = find(lib, PLACE)
        aggregator = place.average_incrementally_updates(axis, k)
        tx = place.process(lib.clip(limit), aggregator, lib.sgd(rate, momentum=0.5))
        return updates_of(tx, calls, parameters(calls[0], axis))

    return run


def counted(draw: Draw) -> Any:
    axis = draw(axes)
    (gradients,) = drawn(draw, axis, 1)
    return lambda lib: find(lib, PLACE).get_batch_size_from_per_elt_updates(gradients, axis)


CASES: dict[str, Case] = {
    f"{PLACE}.{name}": case
    for name, case in {
        "accumulate_avg_updates": accumulated,
        "add_mean_variance_to_opt": beside_an_optimizer,
        "average_incrementally_updates": with_rounds("average_incrementally_updates"),
        "average_per_element_updates": averaged,
        "get_batch_size_from_per_elt_updates": counted,
        "get_per_element_mean_and_sum_sq_diff_grads": with_rounds("get_per_element_mean_and_sum_sq_diff_grads"),
        "get_unbiased_mean_and_variance_ema": tracked,
        "process": processed,
        "track_per_element_mean_and_variance_with_ema": tracked,
    }.items()
}
