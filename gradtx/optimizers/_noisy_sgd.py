# SPDX-License-Identifier: Apache-2.0
"""Gradient descent with noise that fades."""

from gradtx.core._combine import chain
from gradtx.core._factory import transformation
from gradtx.core._kinds import Seed
from gradtx.core._ranges import NonNegative
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import ScalarOrSchedule
from gradtx.transforms._noise import add_noise
from gradtx.transforms._scaling import scale_by_lr


@transformation
def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: NonNegative = 0.01,
    gamma: NonNegative = 0.55,
    key: Seed | None = None,
    *,
    seed: Seed | None = None,
) -> GradientTransformationExtraArgs:
    """p = p - learning_rate (g + N(0, eta / (1 + count)^gamma)), where `count` is 0 at the first step.

    Args:
      eta: the variance of the noise at the first step.
      gamma: the exponent with which the variance decays.
      key, seed: where the noise comes from, see `add_noise`.

    Reference: Neelakantan et al. 2015, arXiv:1511.06807.
    """
    return chain(add_noise(eta, gamma, key, seed=seed), scale_by_lr(learning_rate))
