# SPDX-License-Identifier: Apache-2.0
"""Random calls that gradtx.compat.optax and optax share.

A case draws arguments and returns a function of the library: `case(draw)(library)` is what the two must agree on.
"""

import inspect
import operator
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
from hypothesis import strategies as st

import gradtx
from gradtx.compat import optax as compat
from gradtx.core._ranges import Floating, Range

Draw = Callable[[st.SearchStrategy], Any]
Case = Callable[[Draw], Callable[[Any], Any]]

EXCEPTIONS: dict[str, str] = {
    "contrib.acprop": "`acprop`",
    "contrib.scale_by_acprop": "`acprop`",
    "contrib.hutchinson_estimator_diag_hessian": "`hutchinson_estimator_diag_hessian(5)`",
    "contrib.sophia": "`sophia`",
    "lbfgs": "`scale_by_zoom_linesearch`, trials",
    "rprop": "`rprop`",
    "scale_by_rprop": "`rprop`",
    "scale_by_zoom_linesearch": "`scale_by_zoom_linesearch`, trials",
    "yogi": "`yogi`",
}
"""Where the two differ on purpose for all arguments: the row of docs/differences.md, which has a test of each side."""

# A few shapes: each operation is compiled once for each.
SHAPES = [(), (1,), (3,), (2, 3), (4, 1), (2, 1, 3)]
shapes = st.sampled_from(SHAPES)
dtypes = st.sampled_from([np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)])
seeds = st.integers(0, 2**16)


def find(library: Any, name: str) -> Any:
    return operator.attrgetter(name)(library)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of three decimals."""
    return st.integers(round(1000 * low), round(1000 * high)).map(lambda n: n / 1000)


def array(draw: Draw, shape: tuple[int, ...], dtype: Any = np.float32, ties: bool = True, scale: float = 1.0) -> Any:
    """Normal numbers; with `ties` sometimes multiples of 1/2, many of them equal or 0, and sometimes large."""
    x = np.random.default_rng(draw(seeds)).normal(size=shape) * scale
    kind = draw(st.sampled_from(["normal", "halves", "large"])) if ties else "normal"
    x = np.round(2 * x) / 2 if kind == "halves" else 20 * x if kind == "large" else x
    return jnp.asarray(x, dtype)


def fractions(draw: Draw, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    return jnp.asarray(np.random.default_rng(draw(seeds)).uniform(0.05, 0.95, size=shape), dtype)


def integers(draw: Draw, shape: tuple[int, ...], low: int, high: int) -> Any:
    """From low to high - 1."""
    return jnp.asarray(np.random.default_rng(draw(seeds)).integers(low, high, size=shape), jnp.int32)


def mask(draw: Draw, shape: tuple[int, ...], axis: int = -1) -> Any:
    """None, or a mask that hides less than everything along the axis."""
    if draw(st.booleans()):
        return None
    x = np.random.default_rng(draw(seeds)).integers(0, 2, size=shape).astype(bool)
    np.moveaxis(x, axis, 0)[0] = True
    return jnp.asarray(x)


def leaf_shapes(draw: Draw, smallest_rank: int = 0) -> Any:
    """A tree of shapes: a leaf, a tuple or a dictionary."""
    shape = st.sampled_from([s for s in SHAPES if len(s) >= smallest_rank])
    kind = draw(st.sampled_from(["nested", "tuple", "leaf"]))
    if kind == "leaf":
        return Shape(draw(shape))
    first, second = Shape(draw(shape)), Shape(draw(shape))
    return (first, second) if kind == "tuple" else {"b": [first], "a": {"w": second}}


class Shape(tuple):
    """A shape that is a leaf."""


def tree_like(draw: Draw, layout: Any, dtype: Any = np.float32, ties: bool = False, scale: float = 1.0) -> Any:
    return jax.tree.map(
        lambda s: array(draw, tuple(s), dtype, ties, scale), layout, is_leaf=lambda x: isinstance(x, Shape)
    )


def within(spec: Range) -> st.SearchStrategy:
    """Ordinary numbers of a range: those for which float32 has digits left in 1 - x."""
    if spec.integer:
        return st.integers(int(spec.low), int(spec.low) + 3)
    if np.isfinite(spec.high):
        return numbers(spec.low + 0.1 * spec.low_open, spec.high - 0.1)
    return numbers(spec.low + 0.01, spec.low + 1) if np.isfinite(spec.low) else numbers(-2, 2)


class By:
    """An argument that each library makes for itself, such as an inner optimizer."""

    def __init__(self, make: Callable[[Any], Any]):
        self.make = make


def matrices(tree: Any) -> Any:
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, tree)


def hyperparameters(draw: Draw, name: str, fixed: dict[str, Any]) -> dict[str, Any]:
    """An argument for each parameter that both libraries have, from gradtx's annotations or from `fixed`."""
    ours = getattr(find(compat, name), "factory", None) or find(gradtx, name.split(".")[-1]).factory
    found = {}
    for p in inspect.signature(find(optax, name)).parameters.values():
        if p.name in fixed:
            given = fixed[p.name]
            found[p.name] = draw(given) if isinstance(given, st.SearchStrategy) else given
            continue
        strategy = _of(ours, p)
        if strategy is None:
            if p.default is p.empty:
                raise TypeError(f"{name}: nothing is known of {p.name}: add it to the table of this name")
            continue
        found[p.name] = draw(st.none() | strategy if p.default is None else strategy)
    return found


def _of(ours: Any, p: inspect.Parameter) -> st.SearchStrategy | None:
    spec, hint = ours.specs.get(p.name), ours.hints.get(p.name)
    if "learning_rate" in p.name and isinstance(spec, Range):
        return numbers(0.01, 1)
    if isinstance(spec, Range):
        return within(spec)
    if isinstance(spec, Floating):
        return st.just(np.dtype(np.float32))
    if hint is bool:
        return st.booleans()
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    return st.sampled_from([matrices, p.default]) if "mask" in p.name else None


def called(name: str, given: dict[str, Any]) -> Callable[[Any], Any]:
    def call(library: Any) -> Any:
        values = {n: v.make(library) if isinstance(v, By) else v for n, v in given.items()}
        return find(library, name)(**values)

    return call


def assert_agree(found: Any, expected: Any, tolerance: float) -> None:
    """Leaf by leaf, in units of the largest expected number of the leaf; bfloat16 by its own rounding.

    What is below 1e-6 counts as 1e-6: optax loses digits of small differences.
    """
    leaves, expected_leaves = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(leaves) == len(expected_leaves), f"{found} instead of {expected}"
    for a, b in zip(leaves, expected_leaves, strict=True):
        assert jnp.shape(a) == jnp.shape(b)
        if jax.dtypes.issubdtype(jnp.result_type(b), jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        narrow = jnp.result_type(b) == jnp.bfloat16
        assert narrow or jnp.result_type(a) == jnp.result_type(b)
        a, b = (np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64) for x in (a, b))
        size = np.max(np.abs(b), where=np.isfinite(b), initial=1e-6)
        limit = max(tolerance, 2**-6) if narrow else tolerance
        np.testing.assert_allclose(a, b, rtol=limit, atol=limit * size)
