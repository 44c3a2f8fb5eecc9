# SPDX-License-Identifier: Apache-2.0
"""Muon by head: each head of queries, keys and values is a matrix of its own."""

from typing import Any

from gradtx._roles._boxing import with_roles
from gradtx._roles._inference import infer_roles
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._muon import muon
from gradtx.recipes._shared import WholeProjections


@transformation
def muon_by_head(
    learning_rate: ScalarOrSchedule, weight_decay: NonNegative = 0.1, *, rules: Any = infer_roles
) -> GradientTransformationExtraArgs:
    """Muon, for which each head of queries, keys and values is a matrix. GLM-5's page calls it Muon split.

    ```
    u = 0.2 sqrt(max(inputs, outputs)) NewtonSchulz(momentum), head by head          p = p - rate (u + weight_decay p)
    ```

    The projection out of an attention is one matrix. A form, without numbers; the scale is that of Moonlight.

    Args:
      weight_decay: of the matrices; the rest has Adam without decay.
      rules: what the parameters are, see `with_roles`. `infer_roles` knows the heads of Flax's attention; where heads
        lie side by side in (m, h d), give `Role("hidden", in_axes=0, out_axes=1, blocks=(d,) * h)`.

    Reference: Liu et al. 2025, arXiv:2502.16982 (the scale).
    """
    optimizer = muon(learning_rate, weight_decay=weight_decay, consistent_rms=0.2, bias_correction=False)
    return with_roles(WholeProjections(rules, outputs=True), optimizer)
