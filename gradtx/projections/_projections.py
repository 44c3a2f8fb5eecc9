# SPDX-License-Identifier: Apache-2.0
"""Projections: the nearest point of a convex set, or of a sphere, in Euclidean distance.

The simplex, the l1 and l2 sets, hyperplanes and half-spaces see the whole tree as one vector. All projections are
computed in at least float32 and keep the dtype of floating leaves; None stays None. They are differentiable almost
everywhere, also with respect to the parameters of the set.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._kinds import RealTree, Tree
from gradtx.core._prefixes import spread
from gradtx.core._ranges import Bound, Minimum, Range, Real
from gradtx.core._trees import align_leaves, check_shapes, is_none, paths
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt

Radius = Annotated[Any, Range(low=0.0, endless=True, many=True, example=1.0)]


@checked
def projection_non_negative(tree: RealTree) -> Any:
    """max(x, 0) for each number."""
    return _each("projection_non_negative", lambda x: jnp.maximum(x, 0), tree)


@checked
def projection_box(tree: RealTree, lower: RealTree, upper: RealTree) -> Any:
    """min(max(x, lower), upper) for each number.

    Args:
      lower, upper: trees like `tree` or prefixes of it, such as one number for all; an array is broadcast to its leaf.

    Raises:
      ValueError: with the path, if a bound does not fit its leaf or a lower bound is above the upper one.
    """
    return _clipped("projection_box", tree, lower, upper)


@checked
def projection_hypercube(tree: RealTree, scale: RealTree = 1) -> Any:
    """min(max(x, 0), scale) for each number.

    Args:
      scale: the side, at least 0: one number, or a tree like `upper` of `projection_box`.
    """
    return _clipped("projection_hypercube", tree, 0, scale)


@checked
def projection_linf_ball(tree: RealTree, scale: Radius = 1) -> Any:
    """The nearest tree with max |x| <= scale.

    Args:
      scale: the radius, one number, at least 0.
    """
    scale = _one("projection_linf_ball", scale)
    return _clipped("projection_linf_ball", tree, -scale, scale)


@checked
def projection_simplex(tree: RealTree, scale: Minimum = 1) -> Any:
    """The nearest tree of numbers >= 0 with sum `scale`: max(x - τ, 0), with τ found by sorting.

    Args:
      scale: the sum, one number, at least 0.

    Reference: Duchi et al. 2008, "Efficient projections onto the l1-ball".
    """
    return _as_vector("projection_simplex", _simplex, tree, scale)


@checked
def projection_l1_sphere(tree: RealTree, scale: Minimum = 1) -> Any:
    """A nearest tree with Σ |x| = scale; where a number is 0, its result is not negative.

    Args:
      scale: the radius, one number, at least 0.
    """
    return _as_vector("projection_l1_sphere", _l1_sphere, tree, scale)


@checked
def projection_l1_ball(tree: RealTree, scale: Radius = 1) -> Any:
    """The nearest tree with Σ |x| <= scale.

    Args:
      scale: the radius, one number, at least 0.
    """

    def project(x: jax.Array, s: jax.Array) -> jax.Array:
        return jnp.where(jnp.sum(jnp.abs(x)) <= s, x, _l1_sphere(x, s))

    return _as_vector("projection_l1_ball", project, tree, scale)


@checked
def projection_l2_sphere(tree: Tree, scale: Minimum = 1) -> Any:
    """A nearest tree with sqrt(Σ |x|²) = scale: scale x / ‖x‖; for x = 0, the tree of equal positive numbers.

    Args:
      scale: the radius, one number, at least 0.
    """
    return _l2("projection_l2_sphere", tree, scale, lambda x, inside, on: on)


@checked
def projection_l2_ball(tree: Tree, scale: Radius = 1) -> Any:
    """The nearest tree with sqrt(Σ |x|²) <= scale.

    Args:
      scale: the radius, one number, at least 0.
    """
    return _l2("projection_l2_ball", tree, scale, lambda x, inside, on: jnp.where(inside, x, on))


@checked
def projection_vector(x: RealTree, a: RealTree) -> Any:
    """⟨a, x⟩ / ‖a‖² a: the nearest point on the line through 0 and `a`.

    Args:
      x: a tree of real arrays.
      a: a tree like `x`. For a = 0 the result is 0.
    """
    return _along("projection_vector", x, a, 0, lambda x, a, excess: excess * a)


@checked
def projection_hyperplane(x: RealTree, a: RealTree, b: Real) -> Any:
    """x - (⟨a, x⟩ - b) / ‖a‖² a: the nearest point with ⟨a, x⟩ = b.

    Args:
      x: a tree of real arrays.
      a: a tree like `x`. For a = 0, which describes no plane, x stays as it is.
      b: a number.
    """
    return _along("projection_hyperplane", x, a, b, lambda x, a, excess: x - excess * a)


@checked
def projection_halfspace(x: RealTree, a: RealTree, b: Bound) -> Any:
    """x - max(⟨a, x⟩ - b, 0) / ‖a‖² a: the nearest point with ⟨a, x⟩ <= b.

    Args:
      x: a tree of real arrays.
      a: a tree like `x`. For a = 0, which describes no half-space, x stays as it is.
      b: a number.
    """
    return _along("projection_halfspace", x, a, b, lambda x, a, excess: x - jnp.maximum(excess, 0) * a)


def _simplex(x: jax.Array, scale: jax.Array) -> jax.Array:
    # A shift of x does not change its projection, so the largest number is shifted to 0. Numbers more than `scale`
    # below it project to 0 and are raised to -scale: only small numbers are summed, even if some of x are infinite.
    top = jax.lax.stop_gradient(jnp.max(x))
    x = jnp.where(jnp.isfinite(top), x - top, jnp.where(x == top, 0, -scale))
    fixed, s = jax.lax.stop_gradient((jnp.maximum(x, -scale), scale))
    decreasing = -jnp.sort(-fixed)
    ranks = jnp.arange(1, x.size + 1, dtype=x.dtype)
    shifts = (jnp.cumsum(decreasing) - s) / ranks
    shift = shifts[jnp.sum(decreasing > shifts) - 1] if x.size > 1 else -s
    # Once the support is known, the result is linear in x and scale, which gives its derivatives. The support is that
    # of x, not of `fixed`: rounding may put the shift a little below -scale, the value of all numbers raised to it.
    support = (x > shift) | (x == 0)
    shift = (jnp.sum(jnp.where(support, x, 0)) - scale) / jnp.sum(support).astype(x.dtype)
    found = jnp.where(support, x, 0) - shift
    return jnp.where(jnp.isnan(top), top, jnp.where(support & (found > 0), found, 0))


def _l1_sphere(x: jax.Array, scale: jax.Array) -> jax.Array:
    sign = jnp.where(x < 0, -1, 1).astype(x.dtype)
    return sign * _simplex(sign * x, scale)


def _l2(where: str, tree: Any, scale: Any, choose: Callable) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    size = sum(jnp.size(x) for x in leaves)
    if size == 0:
        return tree
    scale = _one(where, scale)
    wide = widen(leaves, compute_dtype(*map(jnp.asarray, leaves)))
    s = jnp.asarray(scale, compute_dtype(*wide))
    # After division by the largest magnitude, squares neither overflow nor all vanish. The result does not depend on
    # the divisor.
    divided = _divider(wide)
    with promotion(*wide):
        small = [divided(x) for x in wide]
        norm = safe_sqrt(sum((jnp.sum(abs_sq(x)) for x in small), start=jnp.zeros_like(s)))
        inside = norm <= divided(s)
        on = [jnp.where(norm == 0, s / np.sqrt(size).item(), s * safe_divide(x, norm)) for x in small]
        new = [choose(x, inside, y) for x, y in zip(wide, on, strict=True)]
    return jax.tree.unflatten(treedef, [_stored(y, x) for y, x in zip(new, leaves, strict=True)])


def _divider(leaves: list[jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Division by the largest magnitude, as a constant to differentiation; by 1 if it is 0."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in leaves]))
    largest = jax.lax.stop_gradient(jnp.where(largest == 0, 1, largest))
    # The reciprocal of a number near the largest of its dtype would be flushed to 0.
    factor = jnp.where(largest > 1, 1 / 16, 16).astype(largest.dtype)
    return lambda x: x * factor / (largest * factor)


def _along(where: str, x: Any, a: Any, b: Any, move: Callable) -> Any:
    """move(x, a, (⟨a, x⟩ - b) / ‖a‖²) for each leaf."""
    leaves, treedef = jax.tree.flatten(x, is_leaf=is_none)
    normals = align_leaves(treedef, a, where, "a", x, "x")
    check_shapes(where, "x", x, leaves, normals)
    live = [i for i, leaf in enumerate(leaves) if leaf is not None]
    _check_real(where, [*(leaves[i] for i in live), *(normals[i] for i in live)])
    arrays = [jnp.asarray(y) for i in live for y in (leaves[i], normals[i])]
    dtype = compute_dtype(*arrays)
    xs, normal, b = widen(([leaves[i] for i in live], [normals[i] for i in live], b), dtype)
    if not live:
        return x
    # A multiple of (a, b) describes the same set: with the largest |a| at 1, ‖a‖² neither overflows nor underflows.
    divided = _divider(normal)
    normal = [divided(y) for y in normal]
    product = sum((jnp.sum(p * q) for p, q in zip(normal, xs, strict=True)), start=jnp.zeros([], dtype))
    square = sum((jnp.sum(q * q) for q in normal), start=jnp.zeros([], dtype))
    excess = safe_divide(product - divided(b), square)
    for i, p, q in zip(live, xs, normal, strict=True):
        leaves[i] = _stored(move(p, q, excess), leaves[i])
    return jax.tree.unflatten(treedef, leaves)


def _clipped(where: str, tree: Any, lower: Any, upper: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    _check_real(where, leaves)
    sides = [("lower", lower), ("upper", upper)]
    bounds = [treedef.flatten_up_to(spread(where, name, b, tree, lambda x: x is not None and _is_leaf(x)))
              for name, b in sides]  # fmt: skip  # reads as one
    for i, (x, low, high) in enumerate(zip(leaves, *bounds, strict=True)):
        if x is None:
            continue
        if not isinstance(low, Tracer) and not isinstance(high, Tracer) and np.any(np.asarray(low) > np.asarray(high)):
            raise ValueError(f"{where}: at {paths(tree)[i]}: the lower bound {low} is above the upper bound {high}")
        wide, low, high = widen((x, low, high), compute_dtype(jnp.asarray(x)))
        for name, bound in (("lower", low), ("upper", high)):
            if bound.ndim > wide.ndim or np.broadcast_shapes(bound.shape, wide.shape) != wide.shape:
                raise ValueError(
                    f"{where}: at {paths(tree)[i]}: the {name} bound has shape {bound.shape}, the leaf {wide.shape}"
                )
        leaves[i] = _stored(jnp.clip(wide, *(jnp.broadcast_to(y, wide.shape) for y in (low, high))), x)
    return jax.tree.unflatten(treedef, leaves)


def _each(where: str, f: Callable, tree: Any) -> Any:
    _check_real(where, jax.tree.leaves(tree))
    return jax.tree.map(lambda x: _stored(f(widen(x, compute_dtype(jnp.asarray(x)))), x), tree)


def _as_vector(where: str, f: Callable, tree: Any, scale: Any) -> Any:
    """f(x, scale) on the numbers of all leaves as one vector."""
    leaves, treedef = jax.tree.flatten(tree)
    _check_real(where, leaves)
    scale = _one(where, scale)
    sizes = [jnp.size(x) for x in leaves]
    if sum(sizes) == 0:
        return tree
    wide = widen(leaves, compute_dtype(*map(jnp.asarray, leaves)))
    vector = jnp.concatenate([jnp.ravel(x) for x in wide])
    parts = jnp.split(f(vector, jnp.asarray(scale, vector.dtype)), np.cumsum(sizes)[:-1].tolist())
    new = [_stored(part.reshape(jnp.shape(x)), x) for part, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(treedef, new)


def _one(where: str, scale: Any) -> Any:
    if jnp.ndim(scale) != 0:
        raise ValueError(f"{where}: scale must be one number, got {scale!r}")
    return scale


def _check_real(where: str, leaves: list) -> None:
    if any(jnp.iscomplexobj(x) for x in leaves if x is not None):
        raise TypeError(f"{where}: complex numbers have no order: project their real and imaginary parts")


def _is_leaf(x: Any) -> bool:
    return jax.tree_util.all_leaves([x])


def _stored(new: jax.Array, old: Any) -> jax.Array:
    """`new` in the dtype of the old leaf, if that is a floating dtype."""
    dtype = jnp.asarray(old).dtype
    return new.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else new
