# SPDX-License-Identifier: Apache-2.0
"""Quasi-hyperbolic momentum: a weighted mean of gradient and momentum, for descent and for Adam."""

from gradtx.core._combine import chain
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, Fraction, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._momentum import TraceState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


@transformation
def scale_by_qhm(
    decay: Decay = 0.999, mix: Fraction = 0.7, accumulator_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """v = decay v + (1 - decay) g; u = mix v + (1 - mix) g.

    Args:
      mix: the weight of v, the paper's nu: 0 is plain descent, 1 averaged momentum, `decay` Nesterov's momentum.
      accumulator_dtype: the dtype in which v is stored; None for at least float32.

    Reference: Ma and Yarats 2018, arXiv:1810.06801.
    """

    def update(g, v, p, t):
        v = ema(v, g, decay)
        return ema(v, g, mix), v

    return per_parameter(lambda p: zeros_like(p, accumulator_dtype), update, TraceState)


@transformation
def qhm(
    learning_rate: ScalarOrSchedule, decay: Decay = 0.999, mix: Fraction = 0.7, accumulator_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """Quasi-hyperbolic momentum: descent along a mixture of the gradient and its moving average.

    See `scale_by_qhm` for the formula.

    Args:
      mix: the weight of the moving average, see `scale_by_qhm`.

    Reference: Ma and Yarats 2018, arXiv:1810.06801.
    """
    return chain(scale_by_qhm(decay, mix, accumulator_dtype), scale_by_lr(learning_rate))


@transformation
def scale_by_qhadam(
    b1: Decay = 0.995,
    b2: Decay = 0.999,
    mix1: Fraction = 0.7,
    mix2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """QHAdam's direction, with Adam's corrected moments m and v:

    ```
    u = (mix1 m + (1 - mix1) g) / (sqrt(mix2 v + (1 - mix2) g²) + eps)
    ```

    Args:
      mix1, mix2: the weights of m and v, the paper's nu1 and nu2; with 1 and 1 this is Adam.
      mu_dtype: the dtype in which the first moment is stored; None for at least float32.

    Reference: Ma and Yarats 2018, arXiv:1810.06801, section 5.
    """

    def init(p):
        return zeros_like(p, mu_dtype), zeros_like(p, real=True)

    def shared(t, total):
        return correction(b1, t), correction(b2, t)

    def update(g, slots, p, t, corrections):
        (mu, nu), (of_mu, of_nu) = slots, corrections
        mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
        m, v = ema(of_mu * mu, g, mix1), ema(of_nu * nu, abs_sq(g), mix2)
        return safe_divide(m, safe_sqrt(v) + eps), (mu, nu)

    return per_parameter(init, update, ScaleByAdamState, shared=shared)


@transformation
def qhadam(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.995,
    b2: Decay = 0.999,
    mix1: Fraction = 0.7,
    mix2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
) -> GradientTransformationExtraArgs:
    """QHAdam: Adam with mixtures of the gradient and its average, and of the squared gradient and its average.

    See `scale_by_qhadam` for the formula. The defaults are the paper's advice for replacing Adam.

    Args:
      mix1, mix2: the weights of the moving averages, see `scale_by_qhadam`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Ma and Yarats 2018, arXiv:1810.06801.
    """
    return chain(
        scale_by_qhadam(b1, b2, mix1, mix2, eps, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
