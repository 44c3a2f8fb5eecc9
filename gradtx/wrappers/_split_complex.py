# SPDX-License-Identifier: Apache-2.0
"""Complex parameters as pairs of real ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._evaluation import eval_params
from gradtx.core._factory import transformation
from gradtx.core._roles import is_box, is_full_box
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates


class SplitRealAndImaginaryArrays(NamedTuple):
    """Stands in place of a complex array."""

    real: jax.Array
    imaginary: jax.Array


class SplitRealAndImaginaryState(NamedTuple):
    """The state of the inner transformation, which sees real arrays only."""

    inner_state: OptState

    def eval_params(self, params: Params) -> Params:
        return _join(eval_params(self.inner_state, _split(params)))


@transformation
def split_real_and_imaginary(inner: Any) -> GradientTransformationExtraArgs:
    """Gives `inner` the real and the imaginary part of each complex parameter as two real parameters.

    Adam, for example, then scales the two parts separately, where it otherwise scales both by the magnitude. Extra
    arguments with the structure of the updates are split too.
    """
    tx = as_inner("split_real_and_imaginary: inner", inner)

    def init(params: Params) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(tx.init(_split(params)))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("split_real_and_imaginary", state, SplitRealAndImaginaryState)
        structure = jax.tree.structure(updates)
        extra = {n: _split(x) if jax.tree.structure(x) == structure else x for n, x in extra.items()}
        split_params = None if params is None else _split(params)
        new, inner_state = tx.update(_split(updates), state.inner_state, split_params, **extra)
        return _join(new), state._replace(inner_state=inner_state)

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )


def _split(tree: Any) -> Any:
    def split(x: Any) -> Any:
        if is_box(x):
            pair = split(x.value) if is_full_box(x) else x.value
            return SplitRealAndImaginaryArrays(*map(x.holding, pair)) if _is_pair(pair) else x
        return SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else x

    return jax.tree.map(split, tree, is_leaf=is_box)


def _join(tree: Any) -> Any:
    def joined(x: Any) -> Any:
        if not _is_pair(x):
            return x
        parts = jax.tree.leaves(x)
        if not parts:  # a frozen parameter has no update
            return None
        return x.real.holding(jax.lax.complex(*parts)) if is_box(x.real) else jax.lax.complex(*parts)

    return jax.tree.map(joined, tree, is_leaf=_is_pair)


def _is_pair(x: Any) -> bool:
    return isinstance(x, SplitRealAndImaginaryArrays)
