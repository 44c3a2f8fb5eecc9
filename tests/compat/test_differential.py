# SPDX-License-Identifier: Apache-2.0
"""Every function of optax 0.2.8 and the one of its name in gradtx.compat.optax, with random arguments.

The cases are in tests/support/differential, a kind of function a file.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import jax
import optax
import pytest
from hypothesis import strategies as st

from gradtx.compat import optax as compat
from support.differential import EXCEPTIONS, Case, aggregating, assert_agree, find, functions, losses, transformations

MODULES = ["", *(n for n, x in vars(optax).items() if isinstance(x, ModuleType) and not n.startswith("_"))]
DOCS = Path(__file__).parents[2] / "docs" / "differences.md"


def public_names() -> list[str]:
    found = []
    for module in MODULES:
        place: Any = find(optax, module) if module else optax
        names = [n for n in dir(place) if not n.startswith("_") and not isinstance(getattr(place, n), ModuleType)]
        found += [f"{module}.{n}" if module else n for n in names]
    return found


NAMES = public_names()

TOLERANCES: dict[str, tuple[float, str]] = {}
"""Where 1e-5 of the largest number is too much to ask, and why."""

OTHER_STATES = {"MultiSteps": "`MultiSteps`, the state", "flatten": "`FlattenState`"}
"""Where the layout of the state is another one: the row of docs/differences.md."""

CANNOT: dict[str, str] = {
    "OptState": "a type",
    "Params": "a type",
    "Updates": "a type",
    "MaskOrFn": "a type",
    "ScalarOrSchedule": "a type",
    "Schedule": "a type",
    "ShouldSkipUpdateFunction": "a protocol",
    "TransformInitFn": "a protocol",
    "TransformUpdateExtraArgsFn": "a protocol",
    "TransformUpdateFn": "a protocol",
    "transforms.ConditionFn": "a protocol",
    "schedules.StatefulSchedule": "a protocol",
    "GradientTransformation": "the pair that every case uses",
    "GradientTransformationExtraArgs": "the pair that every case uses",
    "LookaheadParams": "the pair of the case of lookahead",
    "microbatching.AccumulationType": "the enumeration of the cases of microbatching",
    "microbatching.Accumulator": "a pair of functions of the caller",
    "contrib.GaLoreDimensionNumbers": "an argument of galore: tests/optimizers/test_galore.py",
    "contrib.MuonDimensionNumbers": "an argument of muon",
    "tree_utils.NamedTupleKey": "a step of a path: tests/tree/test_search.py",
    "ZoomLinesearchInfo": "a part of a state",
    "transforms.MaskedNode": "a part of a state",
    "MaskedNode": "a part of a state",
}
"""Names without a value to compare, besides the states."""


def cases() -> dict[str, Case]:
    found = {**losses.CASES, **functions.CASES, **aggregating.CASES, **transformations.COMPOSED}
    taken = {id(find(optax, n)) for n in [*found, *EXCEPTIONS]}
    for name in NAMES:
        if id(find(optax, name)) in taken or not exists(compat, name):
            continue
        if transformations.is_transformation(name):
            taken.add(id(find(optax, name)))
            found[name] = transformations.transformation(name)
    muons = ("contrib.muon", "contrib.scale_by_muon")
    for name in (*muons, "optimistic_adam", "optimistic_adam_v2", "scale_by_backtracking_linesearch"):
        found.setdefault(name, transformations.transformation(name))
    return dict(sorted(found.items()))


def exists(library: Any, name: str) -> bool:
    try:
        find(library, name)
    except AttributeError:
        return False
    return True


CASES = cases()
COMPILED = {*losses.CASES, *functions.CASES, *aggregating.CASES}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("standard_promotion")
def test_the_same(name: str) -> None:
    @hypothesis.settings(
        max_examples=6,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.data())
    def check(data: st.DataObject) -> None:
        call = CASES[name](data.draw)
        # Values are compared, not programs: compiling them is most of the time otherwise.
        with jax.disable_jit(name not in COMPILED):
            found, expected = call(compat), call(optax)
        tolerance, _ = TOLERANCES.get(name, (1e-5, ""))
        if name in LAYOUTS:
            (found, layouts), (expected, their_layouts) = found, expected
            assert layouts == their_layouts or name in OTHER_STATES
        assert_agree(found, expected, tolerance)

    check()


LAYOUTS = {n for n in CASES if n not in COMPILED} - {"contrib.schedule_free_eval_params"}


def test_every_name_is_compared_or_has_a_reason() -> None:
    known = {id(find(optax, n)) for n in [*CASES, *EXCEPTIONS, *CANNOT]}
    rest = [n for n in NAMES if id(find(optax, n)) not in known and not hasattr(find(optax, n), "_fields")]
    assert rest == []


def test_two_names_of_one_function_are_two_names_in_both() -> None:
    first: dict[int, str] = {}
    for name in NAMES:
        if not callable(find(optax, name)) or hasattr(find(optax, name), "_fields"):
            continue
        known = first.setdefault(id(find(optax, name)), name)
        if known != name and name not in CANNOT:
            assert find(compat, name) is find(compat, known), (name, known)


LEFT_OUT = {
    "losses.binary_dice_loss": "`binary_dice_loss(apply_sigmoid=False)`",
    "losses.multiclass_sparsemax_loss": "`multiclass_sparsemax_loss` of one example",
    "losses.triplet_margin_loss": "`triplet_margin_loss`, odd `norm_degree`",
    "projections.projection_hypercube": "the hypercube of a tree is an error",
    "update_moment_per_elem_norm": "`tree.update_moment_per_elem_norm`, odd orders",
}
"""Where some arguments are left out because optax is wrong there: the row of docs/differences.md."""

DOCUMENTED = {**EXCEPTIONS, **OTHER_STATES, **LEFT_OUT, **transformations.RESTRICTED}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_exceptions_are_documented(name: str) -> None:
    row = DOCUMENTED[name]
    assert any(line.startswith("|") and row in line for line in DOCS.read_text().splitlines()), row
