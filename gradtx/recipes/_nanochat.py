# SPDX-License-Identifier: Apache-2.0
"""nanochat: NorMuon with Polar Express and cautious decay, Adam with rates of their own for embeddings and head."""

from typing import Any

from gradtx._roles._boxing import with_roles
from gradtx._roles._inference import infer_roles
from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, PositiveInt
from gradtx.core._selectors import of_kind, where
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import scale_by_adam
from gradtx.optimizers._muon import scale_by_matrix_shape
from gradtx.optimizers._normuon import scale_by_normuon
from gradtx.schedules._pieces import linear, warmup
from gradtx.transforms._scaling import scale, scale_by_lr
from gradtx.transforms._weight_decay import decay_weights
from gradtx.wrappers._masked import masked
from gradtx.wrappers._partition import partition


@transformation
def nanochat(
    total_steps: PositiveInt,
    width: PositiveInt = 768,
    learning_rate: ScalarOrSchedule = 0.02,
    weight_decay: NonNegative = 0.2,
    *,
    embedding_learning_rate: ScalarOrSchedule = 0.3,
    head_learning_rate: ScalarOrSchedule = 0.004,
    other_learning_rate: ScalarOrSchedule = 0.005,
    rules: Any = infer_roles,
) -> GradientTransformationExtraArgs:
    """NorMuon with Polar Express and cautious decay for hidden matrices, Adam for the rest, as in January 2026.

    ```
    w(t) = 1, in the last 40 % of the run falling linearly to 0          rate = learning_rate w(t)
    y = NorMuon's direction, with a mean for each element of the longer side
    p = p - rate sqrt(max(1, outputs / inputs)) (y + weight_decay (1 - t / total_steps) p [y p >= 0])
    ```

    The momentum of NorMuon grows from 0.85 to 0.95 in 300 steps. Adam has betas 0.8 and 0.95 and an eps of 1e-10; its
    rates for embeddings and head are divided by sqrt(width / 768). Rates are for batches of 2^19 tokens, and the decay
    is for 12 layers: the code multiplies it by (12 / layers)². Later versions equilibrate and renormalize, too.

    Args:
      total_steps: the number of updates in the whole run.
      width: the width of the model.
      learning_rate, embedding_learning_rate, head_learning_rate: the peaks by kind: "hidden", "embedding", "head".
      weight_decay: of hidden matrices, at the start.
      other_learning_rate: the peak for the rest. That model has only scalars: those that multiply the residual stream
        have this rate, those that add the embeddings to it 0.5, with a b1 of 0.96.
      rules: what the parameters are, see `with_roles`.

    References: https://github.com/karpathy/nanochat; Li et al. 2025, arXiv:2510.05491 (NorMuon); Amsel et al. 2025,
    arXiv:2505.16932 (Polar Express).
    """
    w = linear(round(0.4 * total_steps)).until(total_steps)
    hidden = chain(
        scale_by_normuon(0.1 * warmup(300) + 0.85, axis="longer", ns_coeffs="polar_express", ns_eps=1e-6),
        scale(-1.0),
        decay_weights(weight_decay * linear(total_steps), cautious=True),
        scale_by_matrix_shape(),
        scale_by_lr(learning_rate * w, flip_sign=False),
    )
    by_width, tables, head = (width / 768) ** -0.5 * w, where(of_kind("embedding")), where(of_kind("head"))
    rest = chain(
        scale_by_adam(0.8, 0.95, 1e-10),
        masked(scale_by_lr(embedding_learning_rate * by_width), tables),
        masked(scale_by_lr(head_learning_rate * by_width), head),
        masked(scale_by_lr(other_learning_rate * w), ~where(tables, head)),
    )
    return with_roles(rules, partition({True: hidden, False: rest}, where(of_kind("hidden"))))
