# SPDX-License-Identifier: Apache-2.0
"""Running a transformation on all parameters as one vector."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._dtypes import widened_dtype
from gradtx.core._evaluation import eval_params
from gradtx.core._factory import transformation
from gradtx.core._placement import laid_like, replicated
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.core._wholes import on_wholes


class FlattenState(NamedTuple):
    """The state of the inner transformation, which sees one vector of parameters for each dtype."""

    inner_state: OptState

    def eval_params(self, params: Params) -> Params:
        leaves, treedef = jax.tree.flatten(params)
        vectors = eval_params(self.inner_state, _pack(leaves, leaves))
        return jax.tree.unflatten(treedef, _unpack(vectors, leaves))


@transformation
def flatten(inner: Any) -> GradientTransformationExtraArgs:
    """Gives `inner` all parameters as one vector; if dtypes differ, a dictionary from their names to vectors.

    Meant for rules that work element by element: a norm of one parameter becomes a norm of all. It saves time outside
    `jit`, where each array costs a dispatch; under `jit` the compiler fuses such work itself and vectors are slower.

    Extra arguments with the structure of the updates become vectors too. If only some gradients of a dtype are None,
    they are zeros in the slots of `inner`, and their parameters get no update. On a mesh with explicit axes and
    inside `over_axes` the vectors are replicated: arrays are gathered, and updates are sharded as the parameters are.

    Args:
      inner: the transformation to run; its updates must have the shapes of its gradients.
    """
    tx = as_inner("flatten: inner", inner)

    def init(params: Params) -> FlattenState:
        leaves = jax.tree.leaves(params)
        return FlattenState(tx.init(_pack(leaves, leaves)))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("flatten", state, FlattenState)
        check_said("flatten", params)
        gradients, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        parts = gradients
        if params is not None:
            parts = align(treedef, params, "flatten", "the parameters", updates, "the gradients")
            check_shapes("flatten", "gradient", updates, gradients, parts)
        # One None may stand for a whole subtree of parameters.
        like = [p for g, part in zip(gradients, parts, strict=True) for p in _leaves(g, part, params)]

        def packed(values: Sequence) -> Any:
            pairs = zip(values, gradients, parts, strict=True)
            return _pack([x for v, g, part in pairs for x in _values(v, g, part, params)], like)

        same = {n for n, x in extra.items() if _is_like(x, updates)}
        extra = {n: packed(treedef.flatten_up_to(x)) if n in same else x for n, x in extra.items()}
        vectors, inner_state = tx.update(
            packed(gradients), state.inner_state, None if params is None else _pack(like, like), **extra
        )
        pieces = iter(_unpack(vectors, like))
        found = []
        for g, part in zip(gradients, parts, strict=True):
            own = [next(pieces) for _ in _leaves(g, part, params)]
            found.append(g if is_hole(g) else own[0])
        return jax.tree.unflatten(treedef, found), state._replace(inner_state=inner_state)

    return GradientTransformationExtraArgs(
        *on_wholes(init, update), parts=lambda state: {"inner_state": (inner, state.inner_state)}, gathers=True
    )


def _is_like(x: Any, updates: Updates) -> bool:
    """Whether an extra argument is a tree like the updates; a single number does not count as one."""
    if jax.tree.structure(x) != jax.tree.structure(updates):
        return False
    shapes = [[getattr(leaf, "shape", None) for leaf in jax.tree.leaves(tree)] for tree in (x, updates)]
    return shapes[0] == shapes[1] and getattr(updates, "ndim", 1) > 0


def _leaves(g: Any, part: Any, params: Params) -> list:
    """The arrays that give the shapes and dtypes for one gradient: its parameters, or without them the gradient."""
    if params is None:
        return [] if is_hole(g) else [g]
    return jax.tree.leaves(part)


def _values(value: Any, g: Any, part: Any, params: Params) -> list:
    return [None if is_hole(value) else value for _ in _leaves(g, part, params)]


def _pack(values: list, like: list) -> Any:
    """One vector of the values for each dtype in `like`. None becomes zeros, unless all values of a dtype are None."""
    vectors = {}
    for name, members in _groups(like).items():
        given = [values[i] for i in members if values[i] is not None]
        if not given:
            vectors[name] = None
            continue
        dtype = _common_dtype(given)
        own = [jnp.zeros(jnp.shape(like[i]), dtype) if values[i] is None else values[i] for i in members]
        vectors[name] = _joined(own, dtype)
    return next(iter(vectors.values())) if len(vectors) == 1 else vectors


def _unpack(vectors: Any, like: list) -> list:
    """The inverse of `_pack`, leaf by leaf."""
    groups = _groups(like)
    if len(groups) == 1:
        vectors = {name: vectors for name in groups}
    pieces: list = [None] * len(like)
    for name, members in groups.items():
        if vectors[name] is not None:
            found = _split(vectors[name], tuple(jnp.shape(like[i]) for i in members))
            for i, piece in zip(members, found, strict=True):
                pieces[i] = laid_like(piece, like[i])
    return pieces


@functools.partial(jax.jit, static_argnums=1)
def _joined(arrays: list, dtype: np.dtype) -> jax.Array:
    # Replicated where shardings are types: a vector of several arrays has no common one.
    return jnp.concatenate([jnp.ravel(replicated(jnp.asarray(x, dtype))) for x in arrays])


@functools.partial(jax.jit, static_argnums=1)
def _split(vector: jax.Array, shapes: tuple[tuple[int, ...], ...]) -> list[jax.Array]:
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    starts = [0, *ends[:-1]]
    return [vector[a:b].reshape(shape) for a, b, shape in zip(starts, ends, shapes, strict=True)]


def _groups(like: list) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for i, x in enumerate(like):
        groups.setdefault(jnp.result_type(x).name, []).append(i)
    return groups


def _common_dtype(arrays: list) -> np.dtype:
    dtypes = {jnp.result_type(x) for x in arrays}
    if len(dtypes) == 1:
        return dtypes.pop()
    return widened_dtype(arrays)
