# SPDX-License-Identifier: Apache-2.0
"""Which of the calls that look bad are legal, and why: the one table of what the law of bad calls lets pass."""

import inspect
import math
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gradtx.core import _kinds as kinds
from gradtx.core._arguments import Arguments
from gradtx.core._kinds import Kind, of_hint
from gradtx.core._ranges import Floating, Range
from gradtx.core._transformation import is_transformation

NUMBERS = {"NaN", "inf", "-inf", "negative", "zero", "2.5", "bool"}
OTHERS = {"string", "None", "list", "complex", "array of three", "not called", "wrong tree"}
EVERYTHING = NUMBERS | OTHERS
LEAVES = {"transposed", "broadcastable", "integer leaf", "string leaf", "complex leaf", "missing key", "extra key"}
DATA = NUMBERS | {"None", "list", "complex", "array of three", "wrong tree"} | (LEAVES - {"string leaf"})


class Parameter(NamedTuple):
    """A parameter of a callable, and what its annotation demands."""

    path: str
    name: str
    hint: Any
    spec: Any
    kind: Kind | None
    default: Any
    is_factory: bool


def parameter_of(path: str, function: Callable[..., Any], name: str) -> Parameter:
    """What the signature says of a parameter."""
    known = getattr(function, "factory", None) or Arguments(path, inspect.unwrap(function), False)
    hint = known.hints.get(name)
    default = known.signature.parameters[name].default
    return Parameter(path, name, hint, known.specs.get(name), of_hint(hint), default, hasattr(function, "factory"))


def _may_be_none(p: Parameter) -> bool:
    return p.default is None or type(None) in typing.get_args(p.hint) or isinstance(p.spec, Floating)


def _in_range(p: Parameter, value: Any) -> bool:
    if not isinstance(p.spec, Range) or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if p.spec.integer and not isinstance(value, int):
        return False
    return p.spec.holds(value) and (p.spec.endless or not math.isinf(value))


def _is_vector(p: Parameter, value: Any) -> bool:
    fits = isinstance(p.spec, Range) and not p.spec.integer and isinstance(value, np.ndarray) and p.spec.holds(value)
    return fits and (p.is_factory or p.spec.many)


class Legal(NamedTuple):
    """Calls that are legal: for these callables and arguments (endings of a path, any if empty), these labels."""

    reason: str
    labels: set[str]
    arguments: str = ""
    holds: Callable[[Parameter, Any], bool] = lambda p, value: True

    def covers(self, p: Parameter, label: str, value: Any) -> bool:
        """Whether this is such a call."""
        named = not self.arguments or any(_matches(p, pattern) for pattern in self.arguments.split())
        return label in self.labels and named and self.holds(p, value)


def _matches(p: Parameter, pattern: str) -> bool:
    place, _, name = pattern.rpartition(":")
    return name in (p.name, "*") and (not place or f".{place}." in f".{p.path}.")


def _of(*some: Kind) -> Callable[[Parameter, Any], bool]:
    return lambda p, value: p.kind in some


BY_KIND = [
    Legal("it lies in the range of its annotation", NUMBERS, holds=_in_range),
    Legal("None is the default, or a choice that the annotation names", {"None"}, holds=lambda p, v: _may_be_none(p)),
    Legal("several numbers are a population for jax.vmap", {"array of three"}, holds=_is_vector),
    Legal("zero and one are whole numbers, floats too", {"zero"}, holds=lambda p, v: p.hint is bool and False),
    Legal("arrays hold any numbers", DATA, holds=_of(kinds.ARRAY, kinds.MASK, kinds.SCALAR)),
    Legal("trees hold any arrays of numbers; one leaf is a tree", DATA, holds=_of(kinds.TREE, kinds.REAL_TREE)),
    Legal("of shapes, values do not matter", EVERYTHING | LEAVES, holds=_of(kinds.SHAPES)),
    Legal("a leaf or a container without parts is a state that has nothing to tell", EVERYTHING,
          holds=_of(kinds.STATE, kinds.STATE_OF_PARTS)),
    Legal("several texts, none of them", {"list", "wrong tree", "string"}, holds=_of(kinds.TEXTS)),
    Legal("any text", {"string"}, holds=_of(kinds.TEXT)),
    Legal("a function of anything", {"not called"}, holds=lambda p, v: p.kind is None),
]  # fmt: skip  # a row each
"""By what the annotation demands."""

BY_NAME: list[Legal] = []
"""By the name of the callable and of the argument."""


def reason_of(p: Parameter, label: str, value: Any) -> str | None:
    """Why the call is legal, or None."""
    return next((row.reason for row in [*BY_KIND, *BY_NAME] if row.covers(p, label, value)), None)


def is_transformation_like(value: Any) -> bool:
    return is_transformation(value)
