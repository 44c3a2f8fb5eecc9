# SPDX-License-Identifier: Apache-2.0
"""ViT-G of big_vision: Adafactor with momentum, and much more decay in the head than in the body."""

from typing import Any

from gradtx._roles._boxing import with_roles
from gradtx._roles._inference import infer_roles
from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, NonNegativeInt, PositiveInt
from gradtx.core._selectors import of_kind, where
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adafactor import adafactor_big_vision
from gradtx.recipes._shared import steps_between
from gradtx.schedules._pieces import inverse_sqrt, linear, warmup
from gradtx.transforms._clipping import clip_by_global_norm
from gradtx.transforms._weight_decay import decay_weights


@transformation
def vit_adafactor(
    total_steps: PositiveInt,
    learning_rate: ScalarOrSchedule = 8e-4,
    weight_decay: NonNegative = 0.03,
    head_weight_decay: NonNegative = 3.0,
    *,
    warmup_steps: NonNegativeInt = 10_000,
    timescale: PositiveInt = 10_000,
    cooldown_steps: NonNegativeInt = 50_000,
    rules: Any = infer_roles,
) -> GradientTransformationExtraArgs:
    """big_vision's Adafactor as it trained ViT-G on JFT-3B in a million steps.

    ```
    g = g min(1, 1 / ‖g‖)          rate = learning_rate w(t) / sqrt(1 + (t - warmup_steps) / timescale)
    p = p - rate (m + weight_decay p), m the moving average of g / sqrt(v), see `adafactor_big_vision`
    ```

    w(t) grows from 0 to 1 in `warmup_steps`, in which the root is 1, and falls linearly to 0 in `cooldown_steps`.

    Args:
      total_steps: the number of updates in the whole run, cooldown included.
      learning_rate: the peak.
      weight_decay, head_weight_decay: of hidden matrices and of the head; nothing else decays.
      warmup_steps: the steps in which the rate grows from 0.
      timescale: see `schedules.inverse_sqrt`.
      cooldown_steps: the steps in which the rate falls to 0 at the end.
      rules: what the parameters are, see `with_roles`.

    Raises:
      ValueError: if warm-up and cooldown are longer than the run.

    Reference: Zhai et al. 2021, arXiv:2106.04560, and the configuration of https://github.com/google-research/big_vision.
    """
    steps_between("vit_adafactor", total_steps, warmup_steps, cooldown_steps)
    w = warmup(warmup_steps).then(inverse_sqrt(timescale)) * linear(cooldown_steps).until(total_steps)
    rate, hidden, head = learning_rate * w, where(of_kind("hidden")), where(of_kind("head"))
    optimizer = chain(
        clip_by_global_norm(1.0),
        adafactor_big_vision(rate, weight_decay=weight_decay, mask=hidden),
        decay_weights(head_weight_decay, "decoupled", head, learning_rate=rate),
    )
    return with_roles(rules, optimizer)
