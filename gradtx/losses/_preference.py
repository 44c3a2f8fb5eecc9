# SPDX-License-Identifier: Apache-2.0
"""Losses of pairs of answers of which one was preferred."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ArrayLike, Mask
from gradtx.core._ranges import Positive, Range
from gradtx.losses._common import elementwise, safe_product, scalar

KINDS = ("sigmoid", "hinge", "ipo")
Half = Annotated[Any, Range(low=0.0, high=0.5, example=0.1)]


@checked
def dpo_loss(
    chosen: ArrayLike,
    rejected: ArrayLike,
    reference_chosen: ArrayLike | None = None,
    reference_rejected: ArrayLike | None = None,
    *,
    beta: Positive = 0.1,
    kind: str = "sigmoid",
    label_smoothing: Half = 0.0,
    where: Mask | None = None,
) -> jax.Array:
    """-log σ(beta h), with the margin h = (chosen - rejected) - (reference_chosen - reference_rejected).

    The loss for each `kind`:
    ```
    sigmoid  -(1 - label_smoothing) log σ(beta h) - label_smoothing log σ(-beta h)
    hinge    max(0, 1 - beta h)
    ipo      (h - 1 / (2 beta))²
    ```

    Args:
      chosen, rejected: log-probabilities of whole answers under the model, one array each.
      reference_chosen, reference_rejected: the same under the reference model; None for both means no reference,
        as if they were 0.
      beta: positive; the larger, the closer the model stays to the reference.
      kind: "sigmoid", "hinge" or "ipo", as above.
      label_smoothing: the fraction of preferences that are wrong, in [0, 0.5]; only for "sigmoid".
      where: True for the pairs that count; the loss is 0 elsewhere.

    Raises: ValueError if the shapes differ, for an unknown kind, or a number outside its range.

    Reference: Rafailov et al. 2023, arXiv:2305.18290; smoothed: Mitchell 2023, https://ericmitchell.ai/cdpo.pdf;
    hinge: Zhao et al. 2023, arXiv:2305.10425; ipo: Azar et al. 2023, arXiv:2310.12036.
    """
    if kind not in KINDS:
        raise ValueError(f"dpo_loss: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind != "sigmoid" and not (isinstance(label_smoothing, int | float) and label_smoothing == 0):
        raise ValueError(f'dpo_loss: label_smoothing is for kind="sigmoid", got {label_smoothing} with {kind!r}')
    if (reference_chosen is None) != (reference_rejected is None):
        missing = "reference_chosen" if reference_chosen is None else "reference_rejected"
        raise ValueError(f"dpo_loss: {missing} is None, but the other reference is not; give both or neither")

    def loss(own: jax.Array, other: jax.Array, own_before: Any = 0.0, other_before: Any = 0.0) -> jax.Array:
        # Each answer is compared with its reference first: log-probabilities of long answers are large, their
        # differences from the reference are small.
        margin = (own - own_before) - (other - other_before)
        factor = scalar(beta, margin)
        if kind == "ipo":
            return (margin - 1 / (2 * factor)) ** 2
        if kind == "hinge":
            return jnp.maximum(1 - factor * margin, 0)
        wrong = scalar(label_smoothing, margin)
        scaled = factor * margin
        return (1 - wrong) * jax.nn.softplus(-scaled) + safe_product(wrong, jax.nn.softplus(scaled))

    arrays = {"chosen": chosen, "rejected": rejected}
    if reference_chosen is not None:
        arrays |= {"reference_chosen": reference_chosen, "reference_rejected": reference_rejected}
    return elementwise("dpo_loss", loss, where, **arrays)
