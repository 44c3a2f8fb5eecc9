# SPDX-License-Identifier: Apache-2.0
"""Every loss with arguments, its formula in NumPy float64, and what may be masked: a family a file."""

import importlib

from support.losses.case import CASES as CASES
from support.losses.case import Case as Case
from support.losses.case import Masked as Masked

# In this order, since they share a generator of random numbers.
for family in ("regression", "classification", "divergences", "contrastive", "segmentation", "others", "likelihoods"):
    importlib.import_module(f"support.losses.{family}")
