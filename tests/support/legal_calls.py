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
    Legal("several numbers are a population for jax.vmap, whose call it prints as; without vmap, init refuses it",
          {"array of three"}, holds=_is_vector),
    Legal("True is the other value of a flag", {"bool"}, holds=lambda p, v: p.hint is bool),
    Legal("0 is an axis", {"zero", "list"}, holds=_of(kinds.AXIS, kinds.AXES)),
    Legal("0 is a seed", {"zero"}, holds=_of(kinds.SEED)),
    Legal("a mask may be one boolean", {"bool"}, holds=lambda p, v: p.name.endswith("mask")),
    Legal("arrays hold any numbers", DATA, holds=_of(kinds.ARRAY, kinds.MASK, kinds.SCALAR)),
    Legal("trees hold any arrays of numbers; one leaf is a tree", DATA, holds=_of(kinds.TREE, kinds.REAL_TREE)),
    Legal("of shapes, values do not matter", EVERYTHING | LEAVES, holds=_of(kinds.SHAPES)),
    Legal("a leaf or a container without parts is a state that has nothing to tell", EVERYTHING,
          holds=_of(kinds.STATE, kinds.STATE_OF_PARTS)),
    Legal("several texts, none of them", {"list", "wrong tree", "string"}, holds=_of(kinds.TEXTS)),
    Legal("any text", {"string"}, holds=lambda p, v: p.kind is kinds.TEXT or p.hint in (str, str | None)),
    Legal("a function of anything", {"not called"}, holds=lambda p, v: p.kind is None),
]  # fmt: skip  # a row each
"""By what the annotation demands."""

AT_USE = "it is looked at when what is returned runs"
OF_PATHS = "only the paths, shapes and dtypes of the parameters matter"

BY_NAME = [
    # Trees
    Legal("parameters of any shape", DATA - {"NaN", "inf", "-inf", "zero", "bool"}, "minimize:params"),
    Legal("a pair of bounds", {"list"}, "minimize:bounds"),
    Legal("None is a tree without leaves", {"None"}, "as_rules:roles trained carry_state:params split_frozen:params"),
    Legal("a real update of a complex parameter", {"complex leaf"}, "apply_updates:params"),
    Legal(OF_PATHS, DATA | {"string leaf"}, "master_params:params split_frozen:params init_sharded:params "
          "state_shardings:params bytes_per_device:params migrate:params carry_state:params mup:base_params"),
    Legal(OF_PATHS, LEAVES, "find_slots:params get_slot:params set_slot:params reset:params describe:params "
          "explain_path:params eval_from:params"),
    Legal("leaves that are not floating pass", DATA, "scale_gradient:inputs"),
    Legal("no average is in this state, so what is given is handed back", EVERYTHING | LEAVES, "eval_params:params"),
    Legal("a slot may be None everywhere", {"None"}, "eval_from:slots"),
    Legal("of a state without parts nothing is carried over", EVERYTHING, "migrate:old_state"),
    Legal("anything is a tree, a default, or a value in one", EVERYTHING | LEAVES, "get:tree get:default "
          "get_all_with_path:tree set:kwargs unwrap_random_key_data:* split_key_like:target_tree map_params:params"),
    Legal("a name, a place or a class that is not there", {"zero", "string", "not called"}, "get:key "
          "get_all_with_path:key"),
    Legal("a mapping of paths that are not there", {"wrong tree"}, "migrate:moved"),
    Legal("0 is a step", {"zero"}, "restart:at migrate:step plot_curves:start"),
    Legal("an end of the range", {"zero", "bool"}, "step_size"),
    Legal("not read by this criterion", EVERYTHING | LEAVES, "skip_large_updates:params skip_not_finite:params "
          "skip_large_updates:gradient_step skip_not_finite:gradient_step"),
    # Rules by hand, wrappers of functions
    Legal(AT_USE, EVERYTHING, "per_matrix:weight_dimension_numbers micro_grad:accumulator micro_vmap:accumulator "
          "microbatch:accumulator micro_vmap:in_axes"),
    Legal("None or an axis for all", {"None", "bool", "list"}, "microbatch:in_axes"),
    Legal("a choice by name", {"string"}, "where:chosen"),
    Legal("0 is an axis", {"zero"}, "infer_roles:stack adaptive_grad_clip:axis random_seed"),
    Legal("the name of an axis or an argument that whoever calls must have", {"string"}, "axis_name batch_axis_name "
          "MultiSteps:weight"),
    Legal("as many elements as the gradients have", {"zero"}, "average_incrementally_updates:per_elt_axis"),
    # Matrices and norms
    Legal("three coefficients", {"array of three"}, "ns_coeffs"),
    Legal("a number is an exponent", {"zero", "2.5"}, "exponent"),
    Legal("an order of a norm", NUMBERS - {"NaN"}, "safe_norm:ord norm:ord"),
    Legal("None is the precision of the backend", {"None"}, "precision"),
    Legal("a matrix of whole or complex numbers", {"integer leaf", "complex leaf"}, "power_iteration:matrix"),
    Legal("the key of another generator", {"broadcastable"}, "power_iteration:key"),
    # Calls as text and data, races
    Legal("a name may stand for a number", {"wrong tree"}, "names"),
    Legal("an array is made by a call", {"array of three"}, "to_dict:value fingerprint:value diff:left diff:right"),
    Legal("positive numbers", {"list", "array of three"}, "race:factors"),
    # Schedules and pictures
    Legal("a list of numbers", {"list", "array of three"}, "join_schedules:boundaries piecewise_values_schedule:* "
          "plot_paths:levels plot_paths:minimum"),
    Legal("paths of other lengths", LEAVES, "plot_paths:paths"),
]  # fmt: skip  # a row each
"""By the name of the callable and of the argument: `callable:argument`, `*` for all of its arguments."""


def reason_of(p: Parameter, label: str, value: Any) -> str | None:
    """Why the call is legal, or None."""
    return next((row.reason for row in [*BY_KIND, *BY_NAME] if row.covers(p, label, value)), None)
