# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 in large batches: LARS with a polynomial decay."""

from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, NonNegativeInt, PositiveInt
from gradtx.core._selectors import where
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._lars import lars
from gradtx.recipes._shared import is_kernel, steps_between
from gradtx.schedules._pieces import warmup
from gradtx.schedules._polynomial import polynomial_schedule


@transformation
def resnet_lars(
    total_steps: PositiveInt,
    learning_rate: ScalarOrSchedule,
    weight_decay: NonNegative = 1e-4,
    *,
    warmup_steps: NonNegativeInt,
) -> GradientTransformationExtraArgs:
    """LARS for residual networks: rates in proportion to the norms of kernels, warm-up, then a decay with power 2.

    ```
    r = 0.001 ‖p‖ / (‖g‖ + weight_decay ‖p‖) for kernels, 1 for biases and normalization, which do not decay
    v = 0.9 v + rate r (g + weight_decay p)          p = p - v          rate = learning_rate (1 - p(t))²
    ```

    p(t) is the part of the steps after the warm-up that is over; its power, 2, and the 0.001 are the paper's. Rate and
    warm-up depend on the batch: there is no default. The weight decay is that of the first residual networks.

    Args:
      total_steps: the number of updates in the whole run.
      learning_rate: the peak.
      warmup_steps: the steps in which the rate grows from 0.

    Raises:
      ValueError: if the warm-up is as long as the run.

    References: You, Gitman and Ginsburg 2017, arXiv:1708.03888; He et al. 2015, arXiv:1512.03385 (weight decay).
    """
    decay_steps = steps_between("resnet_lars", total_steps, warmup_steps)
    w = warmup(warmup_steps).then(polynomial_schedule(1.0, 0.0, 2, decay_steps))
    kernels = where(is_kernel)
    return lars(learning_rate * w, weight_decay, kernels, trust_ratio_mask=kernels)
