# SPDX-License-Identifier: Apache-2.0
"""`gradtx.compat.optax` has every public name of optax 0.2.8 at its place, with its parameters and defaults."""

import inspect
import operator
import typing
from types import ModuleType
from typing import Any

import jax
import numpy as np
import optax
import pytest

import gradtx
from gradtx.compat import optax as ours

MODULES = [
    "",
    "assignment",
    "contrib",
    "experimental",
    "losses",
    "microbatching",
    "perturbations",
    "projections",
    "schedules",
    "second_order",
    "transforms",
    "tree",
    "tree_utils",
]


def public_names(module: str) -> list[str]:
    place: Any = operator.attrgetter(module)(optax) if module else optax
    names = [n for n in dir(place) if not n.startswith("_") and not isinstance(getattr(place, n), ModuleType)]
    return [f"{module}.{n}" if module else n for n in names]


NAMES = [name for module in MODULES for name in public_names(module)]


def test_there_are_as_many_as_ever():
    assert len(NAMES) == 466


def test_the_same_modules():
    found = {n for n, x in vars(optax).items() if isinstance(x, ModuleType) and not n.startswith("_")}
    assert found == set(MODULES) - {""}
    assert all(isinstance(getattr(ours, module), ModuleType) for module in found)


def parameters(thing: Any) -> dict[str, inspect.Parameter] | None:
    try:
        return dict(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return None


def faults(have: Any, want: Any) -> list[str]:
    """What is missing of optax's interface; more parameters are welcome if they have defaults."""
    if hasattr(want, "_fields"):
        return [] if have._fields[: len(want._fields)] == want._fields else [f"fields {have._fields}"]
    found = []
    if isinstance(want, type):
        found += [f"lacks {m}" for m in dir(want) if not m.startswith("_") and not hasattr(have, m)]
    wanted, had = parameters(want), parameters(have)
    if wanted is None or had is None or any(p.kind is p.VAR_POSITIONAL for p in wanted.values()):
        return found
    for name, p in wanted.items():
        if p.kind is p.VAR_KEYWORD:
            continue
        if name not in had:
            found.append(f"no parameter {name}")
            continue
        found += [f"{name} is keyword-only"] if was_positional(p) and not was_positional(had[name]) else []
        found += [f"{name}={had[name].default!r}, not {p.default!r}"] if not same(had[name].default, p.default) else []
    order = [n for n, p in had.items() if n in wanted and was_positional(p)]
    found += [] if order == [n for n in wanted if n in order] else [f"order {order}"]
    return found + [
        f"one more required: {n}"
        for n, p in had.items()
        if n not in wanted and p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]


def was_positional(p: inspect.Parameter) -> bool:
    return p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two defaults mean the same; functions, dtypes and transformations have no common spelling."""
    if theirs is inspect.Parameter.empty:
        return True
    is_plain = type(theirs) in (bool, int, float, str, tuple, type(None))
    return ours == theirs if is_plain else ours is not inspect.Parameter.empty


@pytest.mark.parametrize("name", NAMES)
def test_name(name: str):
    want = operator.attrgetter(name)(optax)
    assert faults(operator.attrgetter(name)(ours), want) == []


AGGREGATING = [
    n
    for n, x in vars(optax.experimental.aggregating).items()
    if not n.startswith("_") and not isinstance(x, ModuleType) and n not in vars(typing)
]
"""The one module inside another; it has no list of its names, and imports some."""


@pytest.mark.parametrize("name", AGGREGATING)
def test_name_of_aggregating(name: str):
    want = getattr(optax.experimental.aggregating, name)
    assert faults(getattr(ours.experimental.aggregating, name), want) == []


def test_no_other_module_is_inside_another():
    inside = [
        f"{m}.{n}"
        for m in MODULES[1:]
        for n, x in vars(getattr(optax, m)).items()
        if isinstance(x, ModuleType) and x.__name__.startswith("optax.") and not n.startswith("_")
    ]
    assert inside == ["experimental.aggregating"], "NAMES does not see its names"


def test_aggregating_has_no_more_names():
    had = {n for n in vars(ours.experimental.aggregating) if not n.startswith("_")}
    assert len(AGGREGATING) == 17 and had == set(AGGREGATING)


def test_the_check_itself():
    assert faults(lambda x, z=1: 0, lambda x, y, z=2: 0) == ["no parameter y", "z=1, not 2"]
    assert faults(lambda y, x: 0, lambda x, y: 0) == ["order ['y', 'x']"]
    assert faults(lambda x, extra: 0, lambda x: 0) == ["one more required: extra"]
    assert faults(lambda *, x: 0, lambda x: 0) == ["x is keyword-only"]
    assert faults(gradtx.states.EmptyState, optax.TraceState) == ["fields ()"]


def test_all_modules_but_one_have_names():
    assert [m for m in MODULES if not public_names(m)] == ["experimental"]


@pytest.mark.parametrize("module", MODULES)
def test_no_more_names_than_optaxs(module: str):
    """What gradtx has besides is in gradtx."""
    place: Any = operator.attrgetter(module)(ours) if module else ours
    had = {n for n, x in vars(place).items() if not n.startswith("_") and not isinstance(x, ModuleType)}
    assert had == {n.rpartition(".")[2] for n in public_names(module)}


def test_states_are_gradtxs_own():
    """A state made with the names of either place is of one class."""
    state = ours.adam(0.1).init({"w": 1.0})
    assert isinstance(state[0], gradtx.states.ScaleByAdamState) and isinstance(state[0], ours.ScaleByAdamState)
    assert isinstance(ours.adam(0.1), ours.GradientTransformation)
    assert ours.GradientTransformation._fields == ("init", "update")
    assert isinstance(ours.clip(1.0).init({}), ours.ClipState)
    assert isinstance(ours.multi_transform({}, {}).init({}), ours.MultiTransformState)
    assert ours.init_empty_state({}) == ours.EmptyState()


OLD = ["dpsgd", "differentially_private_aggregate", "DifferentiallyPrivateAggregateState"]
OLD += [f"tree_utils.tree_{x}" for x in ("scalar_mul", "add_scalar_mul", "l1_norm", "l2_norm", "linf_norm")]
ARGUMENTS = {"tree_utils.tree_scalar_mul": [2.0], "tree_utils.tree_add_scalar_mul": [{"w": np.ones(2)}, 2.0]}


@pytest.mark.parametrize("name", OLD)
def test_old_names_answer_and_say_the_new_one(name):
    def found(place: Any) -> Any:
        with pytest.warns(DeprecationWarning, match="is deprecated: use optax"):
            return operator.attrgetter(name)(place)

    mine, theirs = found(ours), found(optax)
    if name.startswith("tree_utils"):
        arguments = *ARGUMENTS.get(name, []), {"w": np.array([3.0, -4.0], np.float32)}
        jax.tree.map(np.testing.assert_allclose, mine(*arguments), theirs(*arguments))
    else:
        assert mine is getattr(ours.contrib, name)


def test_names_that_never_were_do_not_answer():
    for place in (ours, ours.tree_utils):
        with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
            place.no_such_name  # noqa: B018  # asking is the test
