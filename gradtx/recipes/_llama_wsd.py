# SPDX-License-Identifier: Apache-2.0
"""SmolLM2: AdamW as for Llama, with warm-up, a constant rate and a decay at the end."""

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, NonNegativeInt, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import adamw
from gradtx.recipes._shared import steps_between
from gradtx.schedules._wsd import wsd_schedule
from gradtx.transforms._clipping import clip_by_global_norm


@transformation
def llama_wsd(
    total_steps: PositiveInt,
    learning_rate: ScalarOrSchedule = 5e-4,
    weight_decay: NonNegative = 0.1,
    *,
    warmup_steps: NonNegativeInt = 2_000,
) -> GradientTransformationExtraArgs:
    """AdamW as for Llama, with the schedule of SmolLM2: warm-up, a constant rate, and a decay to 0 in the last tenth.

    ```
    g = g min(1, 1 / ‖g‖)          rate = learning_rate w(t)
    u = m / (sqrt(v) + 1e-8), Adam's direction with b1 = 0.9, b2 = 0.95          p = p - rate (u + weight_decay p)
    ```

    SmolLM2's report has the betas, the warm-up, the peak of 5e-4 for 1.7 billion parameters and the decay. Weight decay
    and clipping are those of the first Llama, whose schedule was a cosine. What is not decayed, and eps, neither says.

    Args:
      total_steps: the number of updates in the whole run.
      learning_rate: the peak.
      warmup_steps: the steps in which the rate grows from 0.

    Raises:
      ValueError: if nothing is left after warm-up and decay.

    References: Ben Allal et al. 2025, arXiv:2502.02737; Touvron et al. 2023, arXiv:2302.13971.
    """
    decay_steps = max(total_steps // 10, 1)
    stable_steps = steps_between("llama_wsd", total_steps, warmup_steps, decay_steps)
    rate = learning_rate * wsd_schedule(0.0, 1.0, warmup_steps, stable_steps, decay_steps)
    return chain(clip_by_global_norm(1.0), adamw(rate, 0.9, 0.95, weight_decay=weight_decay))
