# SPDX-License-Identifier: Apache-2.0
"""Hyperball: the direction of any stage, with parameters and steps of constant norm."""

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import Positive
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._sphere import keep_norm
from gradtx.transforms._trust_ratio import scale_by_trust_ratio


@transformation
def hyperball(
    learning_rate: ScalarOrSchedule, inner: Transformation | None = None, norm: Positive | None = None
) -> GradientTransformationExtraArgs:
    """Steps of a given angle on a sphere, for each parameter by itself, so that there is no weight decay to choose.

    ```
    u = inner(g)        v = p - learning_rate ‖p‖ u / ‖u‖        p = norm v / ‖v‖
    ```

    Meant for matrices: choose them with `masked`. The same chain without `keep_norm` makes steps of constant relative
    size.

    Args:
      learning_rate: roughly the angle of a step in radians.
      inner: a stage without learning rate; None for `scale_by_adam()`.
      norm: None for the norm that each parameter has in `init`.

    Reference: Wen et al. 2026, arXiv:2606.16899.
    """
    return chain(
        scale_by_adam() if inner is None else inner,
        scale_by_trust_ratio(),
        scale_by_lr(learning_rate),
        keep_norm(norm),
    )
