# SPDX-License-Identifier: Apache-2.0
"""NorMuon: Muon's direction with the same mean square for each neuron."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, zeros_like
from gradtx.numerics._newton_schulz import QUINTIC
from gradtx.numerics._polar import jordan_momentum, polar_factor
from gradtx.numerics._safe import abs_sq, euclidean_norm, safe_divide, safe_sqrt
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._muon import Scaling, matrices_and_rest, scale_by_matrix_shape
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams


class ScaleByNorMuonState(NamedTuple):
    """The number of updates made, the moving averages of g and of the mean squares of the orthogonalized momentum."""

    count: jax.Array
    mu: Updates
    nu: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_normuon(
    beta: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-10,
    *,
    axis: Literal["output", "longer"] = "output",
    nesterov: bool = True,
    ns_coeffs: Any = QUINTIC,
    ns_eps: NonNegative = 1e-7,
    ns_dtype: DType = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Muon's direction, each output divided by the root of a moving average of its mean square:

    ```
    mu = beta mu + (1 - beta) g        O = NewtonSchulz(mu), or of beta mu + (1 - beta) g with `nesterov`
    nu = b2 nu + (1 - b2) mean(O²)     y = O / (sqrt(nu) + eps)        u = y ‖O‖ / (‖y‖ + eps)
    ```

    The mean is over the inputs of each output, so that nu has one number for each. No average is bias-corrected.

    Args:
      axis: "output" as above; "longer" has one number for each element of the longer side, the outputs of a square.
      ns_coeffs, ns_dtype, weight_dimension_numbers: see `scale_by_muon`; the default is five steps of "quintic".
      ns_eps: added to the norm that the momentum is divided by.

    Raises:
      ValueError: for a parameter that is no matrix and has no dimension numbers.

    Reference: Li et al. 2025, arXiv:2510.05491.
    """
    polar = polar_factor("scale_by_normuon", ns_coeffs, ns_eps, ns_dtype)

    def averaged(x):
        inputs, outputs = x.shape
        return 0 if axis == "output" or outputs >= inputs else 1

    def init(p):
        return zeros_like(p), jnp.sum(zeros_like(p, real=True), averaged(p))

    def update(x, nu, p, t):
        o, over = polar(x), averaged(x)
        nu = ema(nu, jnp.sum(abs_sq(o), over) / max(o.shape[over], 1), b2)
        y = safe_divide(o, jnp.expand_dims(safe_sqrt(nu) + eps, over))
        return y * safe_divide(euclidean_norm(o), euclidean_norm(y) + eps), nu

    return per_matrix(
        init,
        update,
        ScaleByNorMuonState,
        enter=jordan_momentum(beta, nesterov),
        entering=("mu",),
        weight_dimension_numbers=weight_dimension_numbers,
    )


@transformation
def normuon(
    learning_rate: ScalarOrSchedule,
    beta: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-10,
    weight_decay: NonNegative = 0.0,
    *,
    axis: Literal["output", "longer"] = "output",
    nesterov: bool = True,
    scaling: Scaling = "jordan",
    ns_coeffs: Any = QUINTIC,
    ns_eps: NonNegative = 1e-7,
    ns_dtype: DType = None,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
) -> GradientTransformationExtraArgs:
    """NorMuon on matrices, Adam on the rest, as `muon` divides them; both with decoupled weight decay.

    See `scale_by_normuon` for the formula. `axis="longer"` with `ns_coeffs="polar_express"` is what the records of the
    NanoGPT speedrun use.

    Args:
      b2: the decay of the mean squares.
      eps: as in the formula; also added to Adam's denominator.
      axis, ns_coeffs, ns_eps, ns_dtype: see `scale_by_normuon`.
      nesterov: applies to Adam, too.
      scaling: see `scale_by_matrix_shape`.
      mask: where to decay among the matrices; the rest has `adam_weight_decay`.
      weight_dimension_numbers: as `muon_weight_dimension_numbers` of `muon`.
      adam_learning_rate: None for `learning_rate`.

    Reference: Li et al. 2025, arXiv:2510.05491.
    """
    of_matrices = chain(
        scale_by_normuon(
            beta,
            b2,
            eps,
            axis=axis,
            nesterov=nesterov,
            ns_coeffs=ns_coeffs,
            ns_eps=ns_eps,
            ns_dtype=ns_dtype,
            weight_dimension_numbers=weight_dimension_numbers,
        ),
        scale_by_matrix_shape(None, weight_dimension_numbers, scaling=scaling),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    of_rest = adamw(rate, adam_b1, adam_b2, eps, adam_eps_root, weight_decay=adam_weight_decay, nesterov=nesterov)
    return matrices_and_rest(of_matrices, of_rest, weight_dimension_numbers)
