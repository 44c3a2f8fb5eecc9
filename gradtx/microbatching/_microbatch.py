# SPDX-License-Identifier: Apache-2.0
"""Microbatching: a function of a batch, evaluated on a few examples at a time to save memory.

The batch of size N is split into N / m microbatches of m examples with a stride: microbatch i has the examples i,
i + N / m, i + 2 N / m, ... A batch that is sharded over devices in blocks is then never moved between them. Of a batch
without examples, sums and means are 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core._checked import checked
from gradtx.core._kinds import Axes, Axis, Texts, Tree
from gradtx.core._ranges import PositiveInt, Whole
from gradtx.core._trees import align, is_none
from gradtx.microbatching._accumulators import AccumulationType, Bound, known, per_part


class Aux(NamedTuple):
    """The second result of `micro_grad`, for each example: value of the function, metrics and auxiliary output."""

    values: Any
    metrics: Any
    aux: Any


@checked
def reshape_batch_axis(tree: Tree, microbatch_size: PositiveInt, axis: Axis = 0) -> Any:
    """Each array with its batch axis split in two: the microbatches, then the examples of each, taken with a stride.

    Args:
      microbatch_size: the number of examples of a microbatch.
      axis: the batch axis.

    Raises:
      ValueError: if the size of the axis is not a multiple of `microbatch_size`.
    """
    return jax.tree.map(lambda x: _split(jnp.asarray(x), microbatch_size, axis), tree)


@checked
def microbatch(
    fun: Callable[..., Any],
    argnums: Axes,
    microbatch_size: PositiveInt | None,
    accumulator: Any = AccumulationType.SUM,
    *,
    argnames: Texts = (),
    in_axes: Any = 0,
    num_real_microbatches: Whole | None = None,
) -> Callable[..., Any]:
    """`fun` evaluated on one microbatch after the other, with the sum (or mean, ...) of the results.

    If `fun` is a sum over the batch, result and derivatives equal those on the whole batch. For a mean over the batch
    use MEAN, for one result per example CONCAT. Sums are in at least float32, results in the dtypes of `fun`.

    Args:
      fun: a function of a batch that returns a tree of arrays.
      argnums, argnames: the arguments with a batch axis; all others are the same for all microbatches.
      microbatch_size: the number of examples of a microbatch; None returns `fun` itself.
      accumulator: an `AccumulationType` or an `Accumulator`, or a tree of them that is a prefix of the result.
      in_axes: the batch axis of these arguments: one number for all, or a sequence with an entry for each of
        `argnums`, then `argnames`; an entry is a number or a prefix of its argument, and None means no batch axis.
      num_real_microbatches: how many microbatches to evaluate, which may be traced; None for all. The rest, which are
        padding, are skipped, and 0 in CONCAT. They hold the examples whose index modulo N / m is at least this number.

    Raises:
      ValueError: if batch axes differ in size or are not a multiple of `microbatch_size`.
    """
    numbers, names = _sequence(argnums), _sequence(argnames)
    if microbatch_size is None:
        return fun
    if isinstance(microbatch_size, bool) or not isinstance(microbatch_size, int) or microbatch_size < 1:
        raise ValueError(f"microbatch: microbatch_size must be a whole number >= 1 or None, got {microbatch_size!r}")
    one_for_all = in_axes is None or isinstance(in_axes, int)
    axes: list = [in_axes] * (len(numbers) + len(names)) if one_for_all else [*in_axes]  # type: ignore[misc]  # see above
    if len(axes) != len(numbers) + len(names):
        raise ValueError(
            f"microbatch: in_axes must have an entry for each of argnums {numbers} and argnames {names}, got {in_axes}"
        )

    def by_microbatches(*args: Any, **kwargs: Any) -> Any:
        for n in numbers:
            if not -len(args) <= n < len(args):
                raise ValueError(f"microbatch: argnums has {n}, but there are {len(args)} positional arguments")
        for name in names:
            if name not in kwargs:
                raise ValueError(f"microbatch: argnames has {name!r}, which is not among the keyword arguments")
        batched = [*(args[n] for n in numbers), *(kwargs[n] for n in names)]
        stacked, axes_of, count = _stacked(batched, axes, microbatch_size)

        def evaluate(i: jax.Array) -> Any:
            here = jax.tree.unflatten(axes_of, [_pick(x, axis, i) for x, axis in stacked])
            given, named = list(args), dict(kwargs)
            for n, x in zip(numbers, here, strict=False):
                given[n] = x
            named.update(zip(names, here[len(numbers) :], strict=True))
            return fun(*given, **named)

        return _accumulated(evaluate, accumulator, count, num_real_microbatches)

    return by_microbatches


@checked
def micro_vmap(
    fun: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: int = 0,
    *,
    microbatch_size: PositiveInt | None = None,
    vmap_fn: Callable[..., Any] = jax.vmap,
    accumulator: Any = AccumulationType.CONCAT,
    num_real_microbatches: Whole | None = None,
) -> Callable[..., Any]:
    """`jax.vmap(fun, in_axes)`, a microbatch at a time; with SUM or MEAN, its sum or mean over the examples.

    Args:
      fun: a function of one example.
      in_axes: as in `jax.vmap`, for positional arguments; None for those that all examples share. Others: axis 0.
      out_axes: must be 0, the axis of the examples in the result of CONCAT.
      microbatch_size: the number of examples of a microbatch; None for the whole batch.
      vmap_fn: the function used instead of `jax.vmap`.
      accumulator, num_real_microbatches: see `microbatch`.
    """
    if out_axes != 0:
        raise ValueError(f"micro_vmap: out_axes must be 0, got {out_axes!r}; move the axis of the result")

    def mapped(*args: Any, **kwargs: Any) -> Any:
        axes = list(in_axes) if isinstance(in_axes, list | tuple) else [in_axes] * len(args)
        if len(axes) != len(args):
            raise ValueError(f"micro_vmap: in_axes has {len(axes)} entries for {len(args)} positional arguments")
        args, axes = (*args, kwargs), [*axes, 0 if kwargs else None]
        numbers = [i for i, axis in enumerate(axes) if jax.tree.leaves(axis)]
        own = [axes[i] for i in numbers]
        if not numbers:
            raise ValueError("micro_vmap: in_axes must name the batch axis of at least one argument")

        def aggregated(*some: Any) -> Any:
            values = vmap_fn(lambda *one: fun(*one[:-1], **one[-1]), in_axes=tuple(axes), out_axes=0)(*some)
            return per_part(lambda a, value: a.aggregate(value), accumulator, values)

        whole = max(_batch_size([args[i] for i in numbers], own), 1)
        size = whole if microbatch_size is None else microbatch_size
        options = {"in_axes": own, "num_real_microbatches": num_real_microbatches}
        return microbatch(aggregated, numbers, size, accumulator, **options)(*args)

    return mapped


@checked
def micro_grad(
    fun: Callable[..., Any],
    has_aux: bool = False,
    argnums: Axes = 0,
    *,
    batch_argnums: Axes = 1,
    keep_batch_dim: bool = True,
    microbatch_size: PositiveInt | None = None,
    accumulator: Any = AccumulationType.SUM,
    transform_fn: Callable[[Any], Any] = lambda gradient: gradient,
    metrics_fn: Callable[[Any], Any] = lambda gradient: None,
    num_real_microbatches: Whole | None = None,
) -> Callable[..., Any]:
    """A function that returns the combined per-example gradients of `fun`, by microbatches, and their `Aux`.

    Args:
      fun: as for `jax.grad`; it is called with one example at a time.
      has_aux: whether `fun` returns (value, auxiliary output), as in `jax.grad`.
      argnums: the arguments with respect to which `fun` is differentiated, as in `jax.grad`.
      batch_argnums: the arguments whose axis 0 is the batch.
      keep_batch_dim: True gives `fun` each example as a batch of size 1, False without the axis.
      accumulator: how the gradients of the examples are combined, see `microbatch`. Values, metrics and auxiliary
        outputs keep an axis 0 of examples.
      transform_fn: applied to the gradient of each example before it is combined, such as clipping its norm.
      metrics_fn: applied to the gradient of each example before `transform_fn`; its results are in `Aux`.
      microbatch_size, num_real_microbatches: see `micro_vmap`.
    """
    batch = _sequence(batch_argnums)

    def mapped(*args: Any) -> Any:
        def of_example(*example: Any) -> tuple[Any, Aux]:
            given = list(example)
            if keep_batch_dim:
                for n in batch:
                    given[n] = jax.tree.map(lambda x: x[None], given[n])
            value, gradient = jax.value_and_grad(fun, argnums, has_aux=has_aux)(*given)
            value, aux = value if has_aux else (value, None)
            return transform_fn(gradient), Aux(value, metrics_fn(gradient), aux)

        wanted = {n % len(args) for n in batch}
        axes = [0 if n in wanted else None for n in range(len(args))]
        how = (accumulator, AccumulationType.CONCAT)
        options = {"microbatch_size": microbatch_size, "num_real_microbatches": num_real_microbatches}
        return micro_vmap(of_example, axes, accumulator=how, **options)(*args)

    return mapped


def _sequence(x: Any) -> list:
    return [x] if isinstance(x, int | str) else list(x)


def _split(x: jax.Array, size: int, axis: int) -> jax.Array:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"microbatch: the batch axis is {axis}, but an array has shape {x.shape}")
    axis %= x.ndim
    if x.shape[axis] % size:
        raise ValueError(
            f"microbatch: the batch of size {x.shape[axis]} is no multiple of microbatch_size {size}: "
            f"pad it, and give num_real_microbatches"
        )
    shape = (*x.shape[:axis], size, x.shape[axis] // size, *x.shape[axis + 1 :])
    return jnp.swapaxes(x.reshape(shape), axis, axis + 1)


def _leaves(batched: list, axes: list) -> tuple[list, Any]:
    """(array, batch axis) for each leaf, and the structure."""
    leaves, treedef = jax.tree.flatten(batched)
    spread = [a for axis, x in zip(axes, batched, strict=True) for a in _spread(axis, x)]
    return list(zip(leaves, spread, strict=True)), treedef


def _spread(axis: Any, tree: Any) -> list:
    entries, prefix = jax.tree.flatten(axis, is_leaf=is_none)
    parts = align(prefix, tree, "microbatch", "the argument", axis, "in_axes")
    return [a for a, part in zip(entries, parts, strict=True) for _ in jax.tree.leaves(part)]


def _batch_size(batched: list, axes: list) -> int:
    pairs, _ = _leaves(batched, axes)
    sizes = sorted({jnp.shape(x)[axis] for x, axis in pairs if axis is not None})
    if len(sizes) != 1:
        raise ValueError(f"microbatch: the batch axes must be of one size, got {sizes or 'no array with one'}")
    return sizes[0]


def _stacked(batched: list, axes: list, size: int) -> tuple[list, Any, int]:
    total = _batch_size(batched, axes)
    pairs, treedef = _leaves(batched, axes)
    axes_from_left = [(x, None if a is None else a % jnp.ndim(x)) for x, a in pairs]
    if total == 0:  # a microbatch that is never evaluated, but for the shape of its result
        axes_from_left = [(x if a is None else _lengthened(jnp.asarray(x), size, a), a) for x, a in axes_from_left]
    stacked = [(x if a is None else _split(jnp.asarray(x), size, a), a) for x, a in axes_from_left]
    return stacked, treedef, total // size


def _lengthened(x: jax.Array, size: int, axis: int) -> jax.Array:
    return jnp.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)


def _pick(x: Any, axis: int | None, i: jax.Array) -> Any:
    return x if axis is None else jax.lax.dynamic_index_in_dim(x, i, axis, keepdims=False)


def _accumulated(evaluate: Callable, accumulator: Any, count: int, real: Any) -> Any:
    if real is not None and not isinstance(real, Tracer) and not 0 <= real <= count:
        raise ValueError(f"microbatch: num_real_microbatches must be between 0 and {count}, got {real}")
    example = jax.eval_shape(evaluate, jnp.zeros([], jnp.int32))
    if isinstance(real, Tracer) or real is None:
        steps = count
    else:  # a shorter scan: skipped microbatches cost nothing, and derivatives work
        steps = int(real)
    n = jnp.asarray(count if real is None else jnp.clip(jnp.asarray(real), 0, count), jnp.int32)
    built = per_part(lambda a, value: Bound(a, a.init(value)), known(accumulator, count, n), example)
    parts, treedef = jax.tree.flatten(built, is_leaf=lambda x: isinstance(x, Bound))

    def updated(carries: list, i: jax.Array) -> list:
        values = treedef.flatten_up_to(evaluate(i))
        return [p.accumulator.update(c, v, i) for p, c, v in zip(parts, carries, values, strict=True)]

    def step(carries: list, i: jax.Array) -> tuple[list, None]:
        if steps == count and real is not None:  # traced: the rest of the scan does no work
            return jax.lax.cond(i < n, lambda c: updated(c, i), lambda c: c, carries), None
        return updated(carries, i), None

    carries = [p.carry for p in parts]
    if steps:  # a scan traces its body even for none
        carries, _ = jax.lax.scan(step, carries, jnp.arange(steps, dtype=jnp.int32))
    return treedef.unflatten([p.accumulator.finalize(c) for p, c in zip(parts, carries, strict=True)])
