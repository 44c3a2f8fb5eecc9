# SPDX-License-Identifier: Apache-2.0
"""Random optimizers live through bad gradients, checkpoints and surgery: see tests/support/fault_machine.py."""

import pytest

from support.fault_machine import run_machine
from support.registry import turns

MACHINES = 108


@pytest.mark.slow
@pytest.mark.parametrize("seed", [turns(seed, seed, of=12) for seed in range(MACHINES)])
def test_a_life_of_faults(seed: int):
    run_machine(seed)
