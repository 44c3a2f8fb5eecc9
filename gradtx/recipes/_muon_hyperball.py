# SPDX-License-Identifier: Apache-2.0
"""MuonHyperball: Muon's direction in steps of a given angle, on spheres."""

from typing import Any

from gradtx._roles._boxing import with_roles
from gradtx._roles._inference import infer_roles
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative
from gradtx.core._selectors import of_kind, where
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import adamw
from gradtx.optimizers._hyperball import hyperball
from gradtx.optimizers._muon import scale_by_muon
from gradtx.wrappers._partition import partition


@transformation
def muon_hyperball(
    learning_rate: ScalarOrSchedule,
    adam_learning_rate: ScalarOrSchedule,
    weight_decay: NonNegative = 0.0,
    *,
    rules: Any = infer_roles,
) -> GradientTransformationExtraArgs:
    """Muon's direction in steps of a given angle, for hidden matrices that keep their norms, and AdamW for the rest.

    ```
    u = NewtonSchulz(momentum)          v = p - learning_rate ‖p‖ u / ‖u‖          p = R v / ‖v‖
    ```

    R is the norm that a matrix has in `init`, so that there is no decay to choose for it. A form, without numbers: give
    the rates as schedules.

    Args:
      learning_rate: of hidden matrices: roughly the angle of a step in radians.
      adam_learning_rate, weight_decay: of AdamW, for the rest.
      rules: what the parameters are, see `with_roles`.

    Reference: Wen et al. 2026, arXiv:2606.16899.
    """
    on_sphere = hyperball(learning_rate, scale_by_muon(bias_correction=False))
    rest = adamw(adam_learning_rate, weight_decay=weight_decay)
    return with_roles(rules, partition({True: on_sphere, False: rest}, where(of_kind("hidden"))))
