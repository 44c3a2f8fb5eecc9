# SPDX-License-Identifier: Apache-2.0
"""The table of slots that mean the same names classes, factories and fields that exist."""

import sys

import pytest

import gradtx
from gradtx.core._factory import REGISTRY
from gradtx.surgery import _quantities as quantities
from gradtx.surgery._quantities import MEAN, SQUARE, quantity

FIELDS = {
    name: x._fields
    for module in [m for n, m in list(sys.modules.items()) if n.startswith("gradtx.")]
    for name, x in vars(module).items()
    if isinstance(x, type) and hasattr(x, "_fields")
}
FACTORIES = {f.name for f in REGISTRY.values()}
NAMED = sorted({*quantities.SYNONYMS, *quantities.FALSE_FRIENDS, *quantities.HARMLESS})


@pytest.mark.parametrize(("kind", "field"), NAMED, ids=map(".".join, NAMED))
def test_what_the_tables_name_exists(kind, field):
    if kind in FACTORIES:
        assert field in FIELDS[type(getattr(gradtx, kind)().init(())).__name__]
    else:
        assert field in FIELDS[kind]


def test_quantities():
    assert quantity(("ScaleByAdamState", "scale_by_adam"), "mu") == MEAN == quantity(("Anything", ""), "exp_avg")
    assert quantity(("ScaleByAdamState", ""), "nu") == SQUARE == quantity(("ScaleByRmsState", ""), "nu")
    assert quantity(("ScaleByAdemamixState", ""), "m1") == MEAN
    assert quantity(("ScaleByAdamState", "scale_by_adamax"), "nu") is None
    assert quantity(("ScaleByBeliefState", "scale_by_belief"), "nu") is None
    assert quantity(("TraceState", "trace"), "trace") is None
