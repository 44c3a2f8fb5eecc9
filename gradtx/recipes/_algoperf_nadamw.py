# SPDX-License-Identifier: Apache-2.0
"""AlgoPerf's baseline: NAdamW with warm-up and cosine."""

from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, NonNegative, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._nadam import nadamw
from gradtx.recipes._shared import warmup_then_cosine


@transformation
def algoperf_nadamw(
    total_steps: PositiveInt,
    learning_rate: ScalarOrSchedule = 0.0017486387539278373,
    b1: Decay = 0.93266073836,
    b2: Decay = 0.9955159689799007,
    weight_decay: NonNegative = 0.08121616522670176,
) -> GradientTransformationExtraArgs:
    """NAdamW with 2 % warm-up and a cosine to 0, and the numbers of AlgoPerf's baseline without tuning.

    ```
    u = m / (sqrt(v) + 1e-8), Adam's direction with Nesterov's momentum          p = p - rate (u + weight_decay p)
    ```

    The numbers are one setting for all eight workloads, for which the baseline runs 0.75 times the steps that the
    benchmark hints at. Its momentum is (b1 mu + (1 - b1) g) / (1 - b1^t); here Dozat's bias correction divides mu by
    1 - b1^(t+1) and g by 1 - b1^t, which differs in the first 1 / (1 - b1) steps.

    Args:
      total_steps: the number of updates in the whole run.
      learning_rate: the peak.

    Reference: Dahl et al. 2023, arXiv:2306.07179, and https://github.com/mlcommons/algorithmic-efficiency.
    """
    rate = learning_rate * warmup_then_cosine("algoperf_nadamw", total_steps, int(0.02 * total_steps))
    return nadamw(rate, b1, b2, weight_decay=weight_decay)
