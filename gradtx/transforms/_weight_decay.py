# SPDX-License-Identifier: Apache-2.0
"""Weight decay: added to the gradient, decoupled from it, corrected, cautious, or towards the initial parameters."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._operations import add, multiply
from gradtx.core._ranges import FiniteNonNegative, Limit, NonNegativeInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule, Updates
from gradtx.wrappers._masked import MaskOfParams, masked


class WeightDecaySchedule(NamedTuple):
    """The number of updates made; the state if the weight decay or its learning rate is a schedule, or begins later."""

    count: jax.Array

    counts_from = {"count": 0}


@transformation
def add_decayed_weights(
    weight_decay: FiniteNonNegative = 0.0, mask: MaskOfParams | None = None
) -> GradientTransformationExtraArgs:
    """u = g + weight_decay * p.

    Before an adaptive stage this is L2 regularization; after it and before the learning rate, decoupled weight decay.

    Args:
      mask: True where to decay: a tree of booleans like the parameters or a prefix of it, or a function from the
        parameters to such a tree; None to decay all.

    Reference: Loshchilov and Hutter 2017, arXiv:1711.05101.
    """
    if mask is not None:
        return masked(add_decayed_weights(weight_decay), mask)

    def update(g, slots, p, t):
        decays = not isinstance(weight_decay, int | float) or weight_decay != 0
        return add(g, multiply(weight_decay, p)) if decays else g, slots

    return per_parameter(None, update, WeightDecaySchedule if callable(weight_decay) else None, needs_params=True)


class DecayWeightsState(NamedTuple):
    """The number of updates made, and the initial parameters."""

    count: jax.Array
    initial: Updates

    counts_from = {"count": 0}


@transformation
def decay_weights(
    weight_decay: FiniteNonNegative,
    kind: Literal["independent", "decoupled", "corrected", "coupled"] = "independent",
    mask: MaskOfParams | None = None,
    *,
    learning_rate: ScalarOrSchedule | None = None,
    max_learning_rate: Limit | None = None,
    cautious: bool = False,
    towards_initial: bool = False,
    of_new: bool = False,
    begin: NonNegativeInt = 0,
) -> GradientTransformationExtraArgs:
    """Weight decay of any kind for any recipe, `chain(recipe, decay_weights(...))`: u = u - weight_decay rate p.

    ```
    independent: rate = 1                                        (the paper's form, without the learning rate)
    decoupled:   rate = learning_rate                            (the form of PyTorch's and Optax's AdamW)
    corrected:   rate = learning_rate² / max_learning_rate       (AdamC: for layers before a normalization)
    coupled:     u = g + weight_decay p, the first stage: `chain(decay_weights(0.1, "coupled"), recipe)`
    ```

    Args:
      kind: which of these forms.
      mask: True where to decay; see `add_decayed_weights`.
      learning_rate: the learning rate of the recipe, for "decoupled" and "corrected"; None for the other kinds.
      max_learning_rate: for "corrected", the largest value of the learning rate if that is a schedule; None for a
        constant learning rate.
      cautious: whether to decay only elements that the update does not move away from 0.
      towards_initial: whether to decay towards the parameters that `init` was given: p - p_init in place of p.
      of_new: whether to decay what the step leads to: p + u in place of p, as where the authors' code decays after it.
      begin: the number of first steps without decay.

    References: Loshchilov and Hutter 2017, arXiv:1711.05101; Defazio 2025, arXiv:2506.02285 (corrected); Chen et al.
    2025, arXiv:2510.12402 (cautious).
    """
    _check_kind(kind, learning_rate, max_learning_rate, cautious, of_new)
    if mask is not None:
        options: dict[str, Any] = dict(cautious=cautious, towards_initial=towards_initial, of_new=of_new, begin=begin)
        rates: dict[str, Any] = dict(learning_rate=learning_rate, max_learning_rate=max_learning_rate)
        return masked(decay_weights(weight_decay, kind, **rates, **options), mask)

    def shared(t, total):
        rate = weight_decay
        if learning_rate is not None:
            rate = rate * learning_rate * (1 if max_learning_rate is None else learning_rate / max_learning_rate)
        return jnp.where(t > begin, rate, 0.0) if begin else rate

    def update(u, initial, p, t, strength):
        excess = p - initial if towards_initial else p
        if kind == "coupled":
            return u + strength * excess, initial
        if cautious:
            strength = jnp.where(jnp.real(jnp.conj(u) * excess) <= 0, strength, 0)
        return u - strength * (excess + u if of_new else excess), initial

    counts = begin or any(map(callable, (weight_decay, learning_rate, max_learning_rate)))
    state = DecayWeightsState if towards_initial else WeightDecaySchedule if counts else None
    return per_parameter(lambda p: p if towards_initial else (), update, state, shared=shared, needs_params=True)


def _check_kind(kind: str, learning_rate: Any, max_learning_rate: Any, cautious: bool, of_new: bool) -> None:
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
    if kind == "coupled" and of_new:
        raise ValueError(
            "decay_weights: of_new=True decays what an update leads to, but kind='coupled' comes before it"
        )
