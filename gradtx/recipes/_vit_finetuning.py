# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a vision transformer: AdamW with rates that fall from the last layer to the first."""

from collections.abc import Callable
from typing import Any

from gradtx._groups._factors import layerwise_decay
from gradtx._groups._grouping import groups
from gradtx._roles._boxing import with_roles
from gradtx._roles._inference import infer_roles
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegative, NonNegativeInt, PositiveInt, StaticFraction
from gradtx.core._selectors import of_kind, where
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers._adam import adamw
from gradtx.recipes._shared import warmup_then_cosine


@transformation
def vit_finetuning(
    total_steps: PositiveInt,
    learning_rate: ScalarOrSchedule = 4e-3,
    weight_decay: NonNegative = 0.05,
    layer_decay: StaticFraction = 0.75,
    *,
    warmup_steps: NonNegativeInt | None = None,
    depth: Callable[[str], Any] | None = None,
    rules: Any = infer_roles,
) -> GradientTransformationExtraArgs:
    """AdamW with layer-wise rates, as masked autoencoders are fine-tuned on ImageNet.

    ```
    p = p - rate layer_decay^(n - i) (u + weight_decay p) in layer i = 0 ... n - 1, u Adam's direction
    ```

    Embeddings come before the first layer, the head after the last. The rate grows from 0, then falls along a cosine to
    0. Hidden matrices and the head decay; the authors' code decays the projection of the patches as well.

    Args:
      total_steps: the number of updates in the whole run.
      learning_rate: the peak, of the head: the paper's 1e-3 for each 256 images of a batch of 1,024. The authors' code
        has half of it for ViT-B, with a layer decay of 0.65.
      layer_decay, depth: see `layerwise_decay`.
      warmup_steps: the steps in which the rate grows from 0; None for a twentieth, as 5 of the 100 epochs of ViT-B.
        ViT-L and ViT-H take 5 of 50.
      rules: what the parameters are, see `with_roles`.

    Raises:
      ValueError: if the warm-up is as long as the run.

    References: He et al. 2021, arXiv:2111.06377, table 9; Bao et al. 2021, arXiv:2106.08254.
    """
    warmed = total_steps // 20 if warmup_steps is None else warmup_steps
    rate = learning_rate * warmup_then_cosine("vit_finetuning", total_steps, warmed)
    base = adamw(rate, weight_decay=weight_decay, mask=where(of_kind("hidden", "head")))
    return with_roles(rules, groups([("**", {"learning_rate": layerwise_decay(layer_decay, depth)})], base))
