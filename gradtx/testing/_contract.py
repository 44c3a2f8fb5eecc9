# SPDX-License-Identifier: Apache-2.0
"""The contract of a transformation, as a check for tests: its clauses in their order, and what came of each."""

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from gradtx.core._checked import checked
from gradtx.core._kinds import Tree
from gradtx.core._ranges import PositiveInt
from gradtx.core._sentences import shortened
from gradtx.core._transformation import check_transformation
from gradtx.testing import _bad_steps, _clauses, _places
from gradtx.testing._case import Case, make_case
from gradtx.testing._compare import Broken, NotApplicable
from gradtx.testing._formula import Reference, is_formula

Clause = Callable[[Case], str | None]

CLAUSES: dict[str, Clause] = {
    "updates fit": _clauses.updates_fit,
    "inputs unchanged": _clauses.inputs_unchanged,
    "deterministic": _clauses.deterministic,
    "eval_shape of init": _clauses.abstract_init,
    "jit equals un-jitted": _clauses.jit_agrees,
    "state types": _clauses.state_types,
    "weak types": _clauses.weak_types,
    "updates fit mixed dtypes": _clauses.mixed_updates_fit,
    "traced once": _clauses.traced_once,
    "runs in scan": _clauses.runs_in_scan,
    "runs under vmap": _clauses.vmap_agrees,
    "resumes exactly": _clauses.resumes_exactly,
    "donation safe": _clauses.donation_safe,
    "None leaves": _clauses.none_leaves,
    "edge shapes": _clauses.edge_shapes,
    "round trips": _clauses.round_trips,
    "params argument": _clauses.params_argument,
    "unknown arguments": _clauses.unknown_arguments,
    "small gradients": _bad_steps.small_gradients,
    "derivatives": _bad_steps.finite_derivatives,
    "guarded": _bad_steps.guarded,
    "sharded": _places.sharded,
    "kept in 8 bits": _places.storable,
}
"""The contract: its clauses by the name that errors give.

They are ordered by cause: a fault that breaks several clauses is reported by the clause that explains it best.
"""

BEYOND: dict[str, Clause] = {
    "stacked layers": _places.stacked,
    "survives 1e20": _bad_steps.survives_huge,
    "survives NaN": _bad_steps.survives_nan,
    "survives infinity": _bad_steps.survives_infinity,
}
"""What not every good transformation does, but what one wants to know of it: `python -m gradtx.verify` tells."""


class Verdict(NamedTuple):
    """What came of a clause: whether it holds, None where it says nothing of this transformation, and a sentence."""

    clause: str
    holds: bool | None
    sentence: str
    cause: Exception | None = None


def outcomes(case: Case, clauses: dict[str, Clause]) -> Iterator[Verdict]:
    """What comes of each clause, when it is asked for."""
    for name, clause in clauses.items():
        try:
            said = clause(case)
        except NotApplicable as reason:
            yield Verdict(name, None, str(reason))
        except Broken as broken:
            yield Verdict(name, False, str(broken))
        except Exception as error:  # of any class: an error where the contract allows none breaks the clause
            summary = str(error).partition("\n")[0]
            yield Verdict(name, False, f"it raised {type(error).__name__}: {summary}", error)
        else:
            yield Verdict(name, True, said or " ".join((clause.__doc__ or "").partition("\n\n")[0].split()))


def with_formula(clauses: dict[str, Clause], formula: Reference | None) -> dict[str, Clause]:
    """The clauses, and the one that compares with a formula, if there is one."""
    return clauses if formula is None else {**clauses, "formula": functools.partial(is_formula, reference=formula)}


@checked
def check_contract(
    tx: Any,
    params: Tree,
    *,
    gradients: Tree | None = None,
    steps: PositiveInt = 3,
    formula: Reference | None = None,
    allow: Collection[str] = (),
    **extra: Any,
) -> None:
    """Runs a transformation, gradtx's, Optax's or your own, and fails at the first clause of the contract it breaks.

    - Updates fit the gradients; inputs are unchanged; a second run gives the same, whatever the order of dict keys.
    - `jit`, `scan`, `vmap` and `eval_shape` agree with plain calls, and steps are traced once.
    - The state keeps its types under every mix of float32 and bfloat16, and shares no memory with the parameters.
    - A run that goes on from saved arrays ends bit for bit the same; one with donated arrays, or over several devices,
      up to rounding.
    - None leaves, the empty tree, scalars and leaves of size zero work; zero and tiny gradients give finite updates,
      and derivatives through steps are finite.
    - State and transformation survive flattening and pickling; `guard` and `stored` can wrap it.
    - `params` may be a keyword, or left out unless the error asks for them; unknown keywords are tolerated.

    In your own tests: `check_contract(mine(0.1), {"w": jnp.ones((2, 3))})`. `python -m gradtx.verify` prints what comes
    of each clause.

    Args:
      tx: any object with `init` and `update`.
      params: a small tree of arrays.
      gradients: a tree like `params`; None for normal numbers, the same at each call.
      steps: how many steps to run, at least 2.
      formula: the run in NumPy, `formula(gradients, params) -> params`: from a list with the gradients of each step and
        the first parameters, in float64, to the last parameters. None if there is none to compare with.
      allow: the names of clauses that may be broken, as errors give them.
      **extra: keyword arguments of `update`. Functions among them must accept any tree; trees like `params` are
        replaced where a clause tests other parameters.

    Raises:
      AssertionError: naming the transformation, the clause, the leaf and what was found there.
    """
    check_transformation("check_contract: tx", tx)
    if steps < 2:
        raise ValueError(f"check_contract: steps must be at least 2, to see a second update, got {steps}")
    clauses = with_formula(CLAUSES, formula)
    if isinstance(allow, str) or not isinstance(allow, Collection):
        raise TypeError(f"check_contract: allow must be names of clauses, got {allow!r} ({type(allow).__name__})")
    if unknown := sorted(set(allow) - set(clauses)):
        raise ValueError(f"check_contract: allow must name clauses, got {unknown[0]!r}; there are {', '.join(clauses)}")
    asked = {name: clause for name, clause in clauses.items() if name not in allow}
    for outcome in outcomes(make_case(tx, params, gradients, steps, extra), asked):
        if outcome.holds is False:
            where = f"check_contract: {shortened(repr(tx), 100)} breaks {outcome.clause!r}"
            raise AssertionError(f"{where}: {outcome.sentence}") from outcome.cause
