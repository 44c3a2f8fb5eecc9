# SPDX-License-Identifier: Apache-2.0
"""Storing the state of a transformation in another layout."""

from collections.abc import Callable
from typing import Any

from gradtx.core._factory import transformation
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._types import OptState, Params, Updates


@transformation
def repack_state(
    inner: Transformation, pack: Callable[[OptState], Any], unpack: Callable[[Any], OptState]
) -> GradientTransformationExtraArgs:
    """Runs `inner` and stores its state as `pack(state)`, such as in the layout of existing checkpoints.

    Args:
      pack: a function from the state of `inner` to the tree to store.
      unpack: its inverse.
    """
    tx = as_inner("repack_state: inner", inner)

    def init(params: Params) -> Any:
        return pack(tx.init(params))

    def update(updates: Updates, state: Any, params: Params = None, **extra: Any) -> tuple[Updates, Any]:
        updates, new = tx.update(updates, unpack(state), params, **extra)
        return updates, pack(new)

    return GradientTransformationExtraArgs(init, update, parts=lambda state: {"": (inner, unpack(state))})
