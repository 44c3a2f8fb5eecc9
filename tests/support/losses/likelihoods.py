# SPDX-License-Identifier: Apache-2.0
"""Negative log-likelihoods of counts and of errors."""

import math

import numpy as np

from support.losses.case import Masked, case, fractions, normal

RATES = {"predictions": normal(3, 5), "targets": np.array([[0.0, 1.0, 2.0, 7.0, 0.5]] * 3)}
ENTRIES = Masked(1, (1, 5), ("predictions", "targets"), out=1)


def poisson(log_input=True, full=False, eps=1e-8):
    """-log(rate^t exp(-rate) / t!), with Stirling's formula in the place of t!, as PyTorch defines it."""

    def loss(x, t):
        rate, log_rate = (np.exp(x), x) if log_input else (x, np.log(x + eps))
        above = np.maximum(t, 1.5)
        factorial = above * np.log(above) - above + np.log(2 * math.pi * above) / 2
        return rate - t * log_rate + (np.where(t > 1, factorial, 0) if full else 0)

    return loss


# No counts of 1, where Stirling's term begins, so that differences across it are no derivatives.
COUNTS = np.array([[0.0, 0.9, 2.0, 7.0, 0.5]] * 3)
POSITIVE = {"predictions": 3 * fractions(3, 5), "targets": COUNTS}
case("poisson_nll_loss", RATES, poisson(), ENTRIES)
case("poisson_nll_loss", {**RATES, "targets": COUNTS}, poisson(full=True), ENTRIES, full=True)
case("poisson_nll_loss", POSITIVE, poisson(False), ENTRIES, log_input=False)
case("poisson_nll_loss", POSITIVE, poisson(False, True, 0.3), ENTRIES, log_input=False, full=True, eps=0.3)
case("poisson_nll_loss", POSITIVE, poisson(False, eps=0.0), ENTRIES, log_input=False, eps=0.0)


def gaussian(full=False):
    def loss(mean, t, variance):
        return (np.log(variance) + (mean - t) ** 2 / variance + (math.log(2 * math.pi) if full else 0)) / 2

    return loss


MEANS = {"predictions": normal(3, 5), "targets": normal(3, 5), "variances": 2 * fractions(3, 5)}
OF_ALL = Masked(1, (1, 5), ("predictions", "targets", "variances"), out=1)
case("gaussian_nll_loss", MEANS, gaussian(), OF_ALL)
case("gaussian_nll_loss", MEANS, gaussian(full=True), OF_ALL, full=True)
case("gaussian_nll_loss", {**MEANS, "variances": 2 * fractions(3, 1)}, gaussian())
