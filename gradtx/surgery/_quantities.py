# SPDX-License-Identifier: Apache-2.0
"""Which slots of different rules are the same quantity, so that one rule can go on with what another has averaged."""

from collections.abc import Iterable

MEAN = "the average of the gradients"
SQUARE = "the average of their squares"

NAMES = {"mu": MEAN, "exp_avg": MEAN, "nu": SQUARE, "exp_avg_sq": SQUARE}
"""What a slot of this name is, unless a table below says otherwise."""

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
"""What may begin anew beside averages that go on: a maximum, an average that needs no correction, constants."""


def quantity(kinds: Iterable[str], field: str) -> str | None:
    """What a slot holds, in words; None if no other rule has the same.

    Args:
      kinds: the class of its state, and its factory.
    """
    kinds = tuple(kinds)
    if any((kind, field) in FALSE_FRIENDS for kind in kinds):
        return None
    return next((SYNONYMS[kind, field] for kind in kinds if (kind, field) in SYNONYMS), NAMES.get(field))


def is_harmless(kind: str, field: str) -> bool:
    return (kind, field) in HARMLESS
