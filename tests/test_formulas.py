# SPDX-License-Identifier: Apache-2.0
"""Every rule equals its formula in float64, over 100 steps of a smooth non-convex problem or of its own gradients."""

import pytest

import formulas
from support.formulas import deviation, run_formula, run_rule


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("c", formulas.CASES, ids=lambda c: c.name)
def test_rule_equals_formula(c, x64, record_property):
    found = deviation(run_rule(c.make(), jit=True, gradient=c.gradient), run_formula(c))
    record_property("deviation", found)
    assert found < c.tolerance, f"{c.name} is {found:.1e} away from its formula"
