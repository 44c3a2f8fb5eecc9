# SPDX-License-Identifier: Apache-2.0
"""The NanoGPT speedrun: NorMuon with Polar Express and cautious decay, Adam for the rest."""

from typing import Any

from gradtx._roles._boxing import with_roles
from gradtx._roles._inference import infer_roles
from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, PositiveInt
from gradtx.core._selectors import of_kind, where
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import adam
from gradtx.optimizers._muon import scale_by_matrix_shape
from gradtx.optimizers._normuon import scale_by_normuon
from gradtx.schedules._pieces import linear, warmup
from gradtx.transforms._scaling import scale, scale_by_lr
from gradtx.transforms._weight_decay import decay_weights
from gradtx.wrappers._partition import partition


@transformation
def nanogpt_speedrun(
    total_steps: PositiveInt,
    learning_rate: ScalarOrSchedule = 0.023,
    adam_learning_rate: ScalarOrSchedule = 0.008,
    weight_decay: NonNegative = 1.2,
    *,
    rules: Any = infer_roles,
) -> GradientTransformationExtraArgs:
    """NorMuon with Polar Express and cautious decay for hidden matrices, Adam for the rest, as at the end of 2025.

    ```
    w(t) = 1, in the last 55 % of the run falling linearly to 0.1          rate = learning_rate w(t)
    y = NorMuon's direction, with a mean for each element of the longer side
    p = p - rate sqrt(max(1, outputs / inputs)) (y + rate weight_decay p [y p >= 0])
    ```

    So the decay goes with the square of the rate. The momentum of NorMuon grows from 0.85 to 0.95 in 300 steps and
    falls back in the last 50. Left out is what belongs to that model: rates that grow with the batch (times 1.51 and
    1.93 after each third), multiples for single parameters, and 40 more steps with the last rate.

    Args:
      total_steps: the number of updates in the whole run.
      learning_rate, adam_learning_rate: the peaks, for hidden matrices and for the rest.
      weight_decay: of hidden matrices; multiplied by the rate once more than usual.
      rules: what the parameters are, see `with_roles`.

    References: https://github.com/KellerJordan/modded-nanogpt; Li et al. 2025, arXiv:2510.05491 (NorMuon); Amsel et al.
    2025, arXiv:2505.16932 (Polar Express); Chen et al. 2025, arXiv:2510.12402 (cautious decay).
    """
    w = linear(round(0.55 * total_steps), 0.1).until(total_steps)
    momentum = 0.1 * (warmup(300) * linear(50).until(total_steps)) + 0.85
    rate = learning_rate * w
    hidden = chain(
        scale_by_normuon(momentum, axis="longer", ns_coeffs="polar_express", ns_eps=1e-6),
        scale(-1.0),
        decay_weights(weight_decay * rate, cautious=True),
        scale_by_matrix_shape(),
        scale_by_lr(rate, flip_sign=False),
    )
    rest = adam(adam_learning_rate * w, 0.65, 0.95)
    return with_roles(rules, partition({True: hidden, False: rest}, where(of_kind("hidden"))))
