# SPDX-License-Identifier: Apache-2.0
"""Weight decay of all kinds."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.wrappers._masked import masked


class WeightDecaySchedule(NamedTuple):
    """The number of updates made, where the weight decay is a schedule."""

    count: jax.Array

    counts_from = {"count": 0}


@transformation
def add_decayed_weights(
    weight_decay: NonNegative = 0.0, mask: Any | Callable[[Params], Any] = None
) -> GradientTransformationExtraArgs:
    """u = g + weight_decay * p.

    Before an adaptive stage it is L2 regularization; after it and before the learning rate, decoupled weight decay.

    Args:
      mask: a tree of booleans like the parameters, or a function from them to one: where to decay. None for everywhere.

    Reference: Loshchilov and Hutter 2017, arXiv:1711.05101.
    """
    if mask is not None:
        return masked(add_decayed_weights(weight_decay), mask)

    def update(g, slots, p, t):
        return g + weight_decay * p, slots

    return per_parameter(None, update, WeightDecaySchedule if callable(weight_decay) else None, needs_params=True)


class DecayWeightsState(NamedTuple):
    """The number of updates made, and the parameters at the start."""

    count: jax.Array
    initial: Updates

    counts_from = {"count": 0}


@transformation
def decay_weights(
    weight_decay: NonNegative,
    kind: Literal["independent", "decoupled", "corrected", "coupled"] = "independent",
    mask: Any | Callable[[Params], Any] = None,
    *,
    learning_rate: ScalarOrSchedule | None = None,
    max_learning_rate: Positive | None = None,
    cautious: bool = False,
    towards_initial: bool = False,
) -> GradientTransformationExtraArgs:
    """Weight decay of any kind for any recipe, `chain(recipe, decay_weights(...))`: u = u - weight_decay rate p.

    ```
    independent: rate = 1                                        (the paper's form: not times the learning rate)
    decoupled:   rate = learning_rate                            (the form of PyTorch's and Optax's AdamW)
    corrected:   rate = learning_rate² / max_learning_rate       (AdamC: for layers before a normalization)
    coupled:     u = g + weight_decay p, the first stage: `chain(decay_weights(0.1, "coupled"), recipe)`
    ```

    Args:
      mask: where to decay, see `add_decayed_weights`.
      learning_rate: that of the recipe.
      max_learning_rate: the largest value of a learning rate that is a schedule.
      cautious: decays only the elements that the update moves towards 0 as well.
      towards_initial: p - p_init for p: decays towards the parameters that `init` was given.

    References: Loshchilov and Hutter 2017, arXiv:1711.05101; Defazio 2025, arXiv:2506.02285 (corrected); Chen et al.
    2025, arXiv:2510.12402 (cautious).
    """
    _check_kind(kind, learning_rate, max_learning_rate, cautious)
    if mask is not None:
        options: dict[str, Any] = dict(cautious=cautious, towards_initial=towards_initial)
        rates: dict[str, Any] = dict(learning_rate=learning_rate, max_learning_rate=max_learning_rate)
        return masked(decay_weights(weight_decay, kind, **rates, **options), mask)

    def shared(t, total):
        if learning_rate is None:
            return weight_decay
        return weight_decay * learning_rate * (1 if max_learning_rate is None else learning_rate / max_learning_rate)

    def update(u, initial, p, t, strength):
        excess = p - initial if towards_initial else p
        if kind == "coupled":
            return u + strength * excess, initial
        if cautious:
            strength = jnp.where(jnp.real(jnp.conj(u) * excess) <= 0, strength, 0)
        return u - strength * excess, initial

    scheduled = any(map(callable, (weight_decay, learning_rate, max_learning_rate)))
    state = DecayWeightsState if towards_initial else WeightDecaySchedule if scheduled else None
    return per_parameter(lambda p: p if towards_initial else (), update, state, shared=shared, needs_params=True)


def _check_kind(kind: str, learning_rate: Any, max_learning_rate: Any, cautious: bool) -> None:
    """Refuses options that have no meaning together."""
    needs_rate = kind in ("decoupled", "corrected")
    if needs_rate != (learning_rate is not None):
        wanted = "needs a learning_rate" if needs_rate else f"takes no learning_rate, got {learning_rate!r}"
        raise ValueError(f"decay_weights: kind={kind!r} {wanted}")
    if kind == "corrected" and callable(learning_rate) and max_learning_rate is None:
        raise ValueError("decay_weights: kind='corrected' needs max_learning_rate, the largest value of the schedule")
    if kind != "corrected" and max_learning_rate is not None:
        raise ValueError(f"decay_weights: kind={kind!r} takes no max_learning_rate, got {max_learning_rate!r}")
    if kind == "coupled" and cautious:
        raise ValueError("decay_weights: cautious=True compares with an update, but kind='coupled' comes before it")
