# SPDX-License-Identifier: Apache-2.0
"""Which slots of different rules hold the same quantity, so that one rule can continue the averages of another."""

from collections.abc import Iterable

MEAN = "the average of the gradients"
SQUARE = "the average of their squares"

NAMES = {"mu": MEAN, "exp_avg": MEAN, "nu": SQUARE, "exp_avg_sq": SQUARE}
"""The quantity of a slot by its name, unless a table below says otherwise."""

SYNONYMS = {("ScaleByAdemamixState", "m1"): MEAN, ("ScaleByAdanState", "m"): MEAN}

# By the class of the state, or by the factory where one class serves several rules.
FALSE_FRIENDS = {
    ("DAdaptAdamWState", "exp_avg"),  # scaled by the estimated rate
    ("DAdaptAdanState", "exp_avg"),
    ("DAdaptLionState", "exp_avg"),
    ("ProdigyState", "exp_avg"),
    ("ProdigyState", "exp_avg_sq"),
    ("DAdaptAdamWState", "exp_avg_sq"),
    ("DAdaptAdanState", "exp_avg_sq"),
    ("ScaleByAdaMuonState", "nu"),  # of orthogonal matrices
    ("ScaleByNorMuonState", "nu"),
    ("ScaleByNamoState", "nu"),  # of norms
    ("ScaleByDionState", "mu"),  # a sum, of which parts are taken away
    ("ScaleByDion2State", "mu"),
    ("ScaleByBeliefState", "nu"),  # of the distance of g from its average
    ("ScaleByCameState", "mu"),  # of normalized gradients
    ("ScaleByNovogradState", "mu"),
    ("ScaleByNovogradState", "nu"),
    ("ScaleBySM3State", "mu"),
    ("ScaleBySM3State", "nu"),
    ("ScheduleFreePlusState", "mu"),
    ("ScheduleFreePlusState", "nu"),
    ("SophiaState", "nu"),  # of the curvature
    ("SpamClipState", "nu"),
    ("scale_by_adamax", "nu"),  # a maximum
    ("scale_by_adam_mini", "nu"),  # of blocks
    ("scale_by_adopt", "mu"),
    ("scale_by_laprop", "mu"),
}

HARMLESS = {("ScaleByAmsgradState", "nu_max"), ("ScaleByAdemamixState", "m2"), ("MuonState", "ns_coeffs")}
"""Slots that may start anew beside averages that go on: a maximum, an average without bias correction, constants."""


def quantity(kinds: Iterable[str], field: str) -> str | None:
    """The quantity that a slot holds, in words; None if no other rule has the same.

    Args:
      kinds: the names of the class of its state and of its factory.
    """
    kinds = tuple(kinds)
    if any((kind, field) in FALSE_FRIENDS for kind in kinds):
        return None
    return next((SYNONYMS[kind, field] for kind in kinds if (kind, field) in SYNONYMS), NAMES.get(field))


def is_harmless(kind: str, field: str) -> bool:
    return (kind, field) in HARMLESS
