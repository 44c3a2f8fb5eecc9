# SPDX-License-Identifier: Apache-2.0
"""Fenchel-Young losses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.losses._common import check_shape, safe_product, same_shape


@checked
def make_fenchel_young_loss(max_fun: Callable[..., Any]) -> Callable[..., jax.Array]:
    """The loss max_fun(scores) - Σ scores targets, whose gradient is that of max_fun minus the targets.

    With `logsumexp` for max_fun it is the cross-entropy, with the maximum the perceptron loss, and with a perturbed
    maximum a loss for structured outputs.

    Args:
      max_fun: `max_fun(scores, *args, **kwargs)` returns one number for each vector along the last axis. If it returns
        one number for a whole batch, it is called with each vector by itself.

    Returns: `loss(scores, targets, *args, **kwargs)`. It raises a ValueError if the shapes of the scores, the targets
    and the values of `max_fun` do not fit together.

    Reference: Blondel et al. 2020, arXiv:1901.02324.
    """
    if not callable(max_fun):
        raise TypeError(f"make_fenchel_young_loss: max_fun must be a function of scores, got {max_fun!r}")

    def fenchel_young_loss(scores: Any, targets: Any, *args: Any, **kwargs: Any) -> jax.Array:
        x, y = same_shape("fenchel_young_loss", scores=scores, targets=targets)
        if x.ndim == 0:
            raise ValueError("fenchel_young_loss: scores must have an axis, got a scalar")
        shape, largest = x.shape[:-1], max_fun(x, *args, **kwargs)
        if shape and jnp.ndim(largest) == 0:  # a function of one vector, which took the batch for one
            of_row = jax.vmap(lambda row: max_fun(row, *args, **kwargs))
            largest = of_row(x.reshape(-1, x.shape[-1])).reshape(shape)
        (largest,) = same_shape("fenchel_young_loss", **{"what max_fun returns": largest})
        check_shape("fenchel_young_loss", "what max_fun returns", largest, shape, "the shape of scores without an axis")
        return largest - jnp.sum(safe_product(y, x), axis=-1)

    return fenchel_young_loss
