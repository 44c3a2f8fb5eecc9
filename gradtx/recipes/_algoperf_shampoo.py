# SPDX-License-Identifier: Apache-2.0
"""The winner of AlgoPerf's tuned track: Shampoo with the length of Adam's steps."""

from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, NonNegative, NonNegativeInt, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._shampoo import shampoo
from gradtx.recipes._shared import warmup_then_cosine


@transformation
def algoperf_shampoo(
    total_steps: PositiveInt,
    learning_rate: ScalarOrSchedule,
    weight_decay: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-12,
    *,
    warmup_steps: NonNegativeInt = 0,
    precondition_frequency: PositiveInt = 100,
    block_size: PositiveInt = 1_024,
) -> GradientTransformationExtraArgs:
    """Shampoo in blocks, with the length of Adam's steps, a root now and then, warm-up and a cosine to 0.

    ```
    u = U ‖A‖ / ‖U‖, with Shampoo's direction U and Adam's A, block by block          p = p - rate (u + weight_decay p)
    ```

    Neighboring axes are merged where they are small together. It takes all parameters, so there are no roles. Rate,
    decay, betas and warm-up were tuned for each workload; there is no one setting to give here.

    Args:
      total_steps: the number of updates in the whole run.
      learning_rate: the peak.
      warmup_steps: the steps in which the rate grows from 0.
      eps, precondition_frequency, block_size: see `scale_by_shampoo`.

    Raises:
      ValueError: if the warm-up is as long as the run.

    References: Kasimbeg et al. 2025, arXiv:2502.15015; Shi et al. 2023, arXiv:2309.06497.
    """
    rate = learning_rate * warmup_then_cosine("algoperf_shampoo", total_steps, warmup_steps)
    return shampoo(
        rate,
        b1,
        b2,
        eps,
        weight_decay=weight_decay,
        precondition_frequency=precondition_frequency,
        graft="adam",
        block_size=block_size,
        merge_dims=True,
    )
