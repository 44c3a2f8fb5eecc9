# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 in an hour: Nesterov's momentum with warm-up and three steps down."""

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, PositiveInt
from gradtx.core._selectors import where
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Numeric, ScalarOrSchedule
from gradtx.optimizers._sgd import sgd
from gradtx.recipes._shared import is_kernel
from gradtx.schedules._pieces import warmup
from gradtx.schedules._piecewise import piecewise_constant_schedule
from gradtx.transforms._weight_decay import add_decayed_weights


@transformation
def resnet_nesterov(
    total_steps: PositiveInt, learning_rate: ScalarOrSchedule = 0.1, weight_decay: NonNegative = 1e-4
) -> GradientTransformationExtraArgs:
    """Nesterov's momentum for residual networks, with warm-up and three steps down, each to a tenth.

    ```
    g = g + weight_decay p for kernels          v = 0.9 v + g          p = p - rate (0.9 v + g)
    ```

    In proportions of 90 epochs, the warm-up, from 0.1 to the peak, takes 5, and the steps come after 30,
    60 and 80. Biases and the parameters of normalization layers do not decay; the paper names only the latter.

    Args:
      total_steps: the number of updates in the whole run.
      learning_rate: the peak: 0.1 for a batch of 256, 3.2 for 8,192.

    Reference: Goyal et al. 2017, arXiv:1706.02677.
    """
    w = warmup(round(total_steps * 5 / 90))
    down: dict[Numeric, Numeric] = {round(total_steps * epoch / 90): 0.1 for epoch in (30, 60, 80)}
    rate = (learning_rate * w + 0.1 * (1 - w)) * piecewise_constant_schedule(1.0, down)
    return chain(add_decayed_weights(weight_decay, where(is_kernel)), sgd(rate, 0.9, nesterov=True))
