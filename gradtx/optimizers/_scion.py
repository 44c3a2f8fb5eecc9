# SPDX-License-Identifier: Apache-2.0
"""Scion: for each parameter the steepest direction in the norm that fits what the parameter is for."""

import math
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
from gradtx.numerics._polar import polar_factor
from gradtx.numerics._safe import euclidean_norm, root_mean_square, safe_divide
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams

Norm = Literal["auto", "spectral", "sign", "input", "output", "rms"]

BY_KIND = {"embedding": "input", "head": "sign", "norm": "rms", "bias": "rms"}
"""The norms of matrices that are not "spectral", by the kind of their role."""


class ScaleByScionState(NamedTuple):
    """The number of updates made and the moving average of g."""

    count: jax.Array
    mu: Updates

    counts_from = {"count": 0}


@transformation
def scale_by_scion(
    b1: Decay = 0.9,
    radius: NonNegative = 1.0,
    *,
    norm: Norm = "auto",
    ns_coeffs: Any = QUINTIC,
    ns_eps: NonNegative = 1e-7,
    ns_dtype: DType = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Of all directions of norm `radius`, the one along which the momentum is steepest:

    ```
    mu = b1 mu + (1 - b1) g        u = radius v, where v is, by the norm,
    spectral: sqrt(outputs / inputs) NewtonSchulz(mu)
    sign:     sign(mu) / inputs
    input:    mu with the outputs of each input divided by their root mean square
    output:   mu with the inputs of each output divided by their norm and by sqrt(inputs)
    rms:      mu / (rms(mu) + 1e-8)
    ```

    Args:
      b1: the authors' argument `momentum` is 1 - b1.
      radius: of the norm ball. The authors train GPT-2 with 50 for hidden matrices and 3000 for the head, that is, with
        `groups`.
      norm: "auto" is "spectral" for a matrix, but "input" for an embedding, "sign" for a head; "rms" for all else, so
        for arrays of other ranks and for norms and biases. Without roles, all matrices are taken for hidden ones.
      ns_coeffs, ns_dtype: see `scale_by_muon`; the default is five steps of "quintic".
      ns_eps: added to the norm that the momentum is divided by.
      weight_dimension_numbers: see `scale_by_muon`; with "auto", "sign" and "rms", None for arrays as they are.

    In the kernel of a convolution, the window counts among the inputs. The authors' u is that over the root of the
    number of places in the window, which can be a part of the radius.

    Raises:
      ValueError: for a parameter that is no matrix, with one of the norms "spectral", "input" and "output".

    Reference: Pethick et al. 2025, arXiv:2502.07529.
    """
    polar = polar_factor("scale_by_scion", ns_coeffs, ns_eps, ns_dtype)

    def enter(g, mu, p, t):
        mu = ema(mu, g, b1)
        return mu, mu

    def steepest(x, kind):
        if kind == "rms":
            return safe_divide(x, root_mean_square(x) + 1e-8)
        inputs, outputs = x.shape if x.ndim == 2 else (1, x.size)
        if kind == "spectral":
            return math.sqrt(outputs / max(inputs, 1)) * polar(x)
        if kind == "sign":
            return jnp.sign(x) / max(inputs, 1)
        if kind == "input":
            return safe_divide(x, euclidean_norm(x, axis=1, keepdims=True, mean=True))
        return safe_divide(x, math.sqrt(inputs) * euclidean_norm(x, axis=0, keepdims=True))

    def update(x, slots, p, t, role=None):
        by_role = BY_KIND.get(role.kind, "spectral") if role is not None else "spectral"
        chosen = norm if norm != "auto" else by_role if x.ndim == 2 else "rms"
        return radius * steepest(x, chosen), slots

    return per_matrix(
        lambda p, role=None: zeros_like(p),
        update,
        ScaleByScionState,
        enter=enter,
        entering=("mu",),
        modes="matrix" if norm in ("spectral", "input", "output") else "all",
        uses_role=True,
        weight_dimension_numbers=weight_dimension_numbers,
    )


@transformation
def scion(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    radius: NonNegative = 1.0,
    *,
    constrained: bool = True,
    norm: Norm = "auto",
    ns_coeffs: Any = QUINTIC,
    ns_eps: NonNegative = 1e-7,
    ns_dtype: DType = None,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Scion on all parameters, each in its own norm: there is no Adam beside it.

    ```
    p = (1 - learning_rate) p - learning_rate u        with `constrained`, so that p stays in the ball of u
    p = p - learning_rate u                            without
    ```

    See `scale_by_scion` for u. Parameters that start on the sphere of their norm are a part of the method.

    Args:
      radius, norm, ns_coeffs, ns_eps, ns_dtype, weight_dimension_numbers: see `scale_by_scion`.
      constrained: see above.
      mask: which parameters are constrained, if any are.

    Reference: Pethick et al. 2025, arXiv:2502.07529.
    """
    direction = scale_by_scion(
        b1,
        radius,
        norm=norm,
        ns_coeffs=ns_coeffs,
        ns_eps=ns_eps,
        ns_dtype=ns_dtype,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    shrinking = [add_decayed_weights(1.0, mask)] if constrained else []
    return chain(direction, *shrinking, scale_by_lr(learning_rate))
