# SPDX-License-Identifier: Apache-2.0
"""Kimi K2: Muon with updates as large as Adam's, and attention logits kept in bounds."""

from typing import Any

from gradtx._roles._boxing import with_roles
from gradtx._roles._inference import infer_roles
from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, NonNegativeInt, Positive, PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._muon import muon
from gradtx.recipes._shared import WholeProjections, steps_between
from gradtx.schedules._pieces import constant, cosine, warmup
from gradtx.transforms._qk_clip import qk_clip


@transformation
def kimi_k2(
    total_steps: PositiveInt,
    exponents: Any,
    learning_rate: ScalarOrSchedule = 2e-4,
    weight_decay: NonNegative = 0.1,
    threshold: Positive = 100.0,
    *,
    warmup_steps: NonNegativeInt = 500,
    rules: Any = infer_roles,
) -> GradientTransformationExtraArgs:
    """MuonClip: Muon without Nesterov's momentum, at the scale of Adam, then QK-clip.

    ```
    M = 0.95 M + g          O = 0.2 sqrt(max(inputs, outputs)) NewtonSchulz(M)
    p = p - rate (O + weight_decay p)
    p = gamma^power p for heads of queries and keys, gamma = min(1, threshold / max_logits)
    ```

    The rate grows to its peak, is constant until 10 / 15.5 of the run, and falls along a cosine to a tenth. `update`
    needs `max_logits`. Heads are those of the roles; to Muon, a projection is one matrix. All but hidden matrices have
    AdamW with the same rate and decay. The report is silent on the momentum and on AdamW's betas: 0.95, and 0.9 and
    0.95, are those of Moonlight, its predecessor.

    Args:
      total_steps: the number of updates in the whole run.
      exponents, threshold: see `qk_clip`. The report's attention has 0.5 for queries and keys without positions, 1 for
        rotary queries, and leaves out the shared rotary key.
      learning_rate: the peak.
      warmup_steps: the steps in which the rate grows from 0.
      rules: what the parameters are, see `with_roles`.

    Raises:
      ValueError: if warm-up and decay are longer than the run.

    References: Kimi Team 2025, arXiv:2507.20534, section 2; Liu et al. 2025, arXiv:2502.16982 (Moonlight).
    """
    decay_steps = round(total_steps * 5.5 / 15.5)
    stable_steps = steps_between("kimi_k2", total_steps, warmup_steps, decay_steps)
    w = warmup(warmup_steps).then(constant(stable_steps)).then(cosine(decay_steps, 0.1))
    optimizer = muon(
        learning_rate * w,
        weight_decay=weight_decay,
        nesterov=False,
        consistent_rms=0.2,
        adam_b2=0.95,
        adam_weight_decay=weight_decay,
    )
    whole = with_roles(WholeProjections(rules), optimizer)
    return with_roles(rules, chain(whole, qk_clip(exponents, threshold)))
