# SPDX-License-Identifier: Apache-2.0
"""LARS: momentum with a learning rate for each parameter, from the ratio of its norm to that of its gradient."""

from collections.abc import Callable
from typing import Any

import jax

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Momentum, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule
from gradtx.numerics._ratios import l2_norms, trust_ratio
from gradtx.transforms._momentum import trace
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskedState, MaskOfParams, masked
from gradtx.wrappers._repacking import repack_state


@transformation
def scale_by_lars(
    weight_decay: NonNegative = 0.0, trust_coefficient: NonNegative = 0.001, eps: NonNegative = 0.0
) -> GradientTransformationExtraArgs:
    """u = r (g + weight_decay p), r = trust_coefficient ‖p‖ / (‖g‖ + weight_decay ‖p‖ + eps), parameter by parameter.

    r is 1 where ‖p‖ or the denominator without eps is 0.

    Args:
      trust_coefficient: about the ratio of the norms of step and parameter, for a learning rate of 1.

    Reference: You, Gitman and Ginsburg 2017, arXiv:1708.03888, equation 6.
    """

    def update(g, slots, p, t):
        of_p, of_g = l2_norms(p, g)
        ratio = trust_ratio(of_p, of_g + weight_decay * of_p, trust_coefficient, eps)
        return (g + weight_decay * p) * ratio, slots

    return per_parameter(None, update, needs_params=True)


@transformation
def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: MaskOfParams = True,
    trust_coefficient: NonNegative = 0.001,
    eps: NonNegative = 0.0,
    trust_ratio_mask: MaskOfParams = True,
    momentum: Momentum = 0.9,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """v = momentum v + learning_rate r (g + weight_decay p); p = p - v, with the r of `scale_by_lars`.

    Args:
      weight_decay_mask: where to decay: a tree of booleans like the parameters or a prefix of it, or a function of the
        parameters that makes one.
      trust_coefficient: see `scale_by_lars`.
      trust_ratio_mask: where r is used, in the same forms; elsewhere it is 1. The authors leave out biases and the
        parameters of normalization layers.

    Reference: You, Gitman and Ginsburg 2017, arXiv:1708.03888, algorithm 1.
    """

    def where(condition: Callable[..., Any]) -> Callable[[Params], Any]:
        def flags(params: Params) -> Any:
            masks = [m(params) if callable(m) else m for m in (weight_decay_mask, trust_ratio_mask)]
            return jax.tree.map(condition, *(jax.tree.broadcast(m, params) for m in masks))

        return flags

    both = scale_by_lars(weight_decay, trust_coefficient, eps)
    ratio_only = scale_by_lars(0.0, trust_coefficient, eps)
    ratios = chain(
        masked(both, where(lambda decay, ratio: decay & ratio)),
        masked(ratio_only, where(lambda decay, ratio: ratio & (decay ^ True))),
    )
    # Four stages with Optax's states, so that its checkpoints fit.
    return chain(
        masked(add_decayed_weights(weight_decay), where(lambda decay, ratio: decay & (ratio ^ True))),
        ratios if callable(weight_decay) else repack_state(ratios, _one, _two),
        scale_by_lr(learning_rate),
        trace(momentum, nesterov),
    )


def _one(state: Any) -> MaskedState:
    return state[0]


def _two(state: Any) -> tuple:
    return state, state
