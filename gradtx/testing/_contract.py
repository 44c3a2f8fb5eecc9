# SPDX-License-Identifier: Apache-2.0
"""The contract of a transformation, as a check for tests."""

from typing import Any

from gradtx.core._checked import checked
from gradtx.core._kinds import Tree
from gradtx.core._ranges import PositiveInt
from gradtx.core._sentences import shortened
from gradtx.core._transformation import check_transformation
from gradtx.testing._case import make_case
from gradtx.testing._clauses import CLAUSES
from gradtx.testing._compare import Broken


@checked
def check_contract(
    tx: Any, params: Tree, *, gradients: Tree | None = None, steps: PositiveInt = 3, **extra: Any
) -> None:
    """Runs a transformation, gradtx's, Optax's or your own, and fails at the first clause of the contract it breaks.

    - Updates fit the gradients; inputs are unchanged; a second run gives the same, whatever the order of dict keys.
    - `jit`, `scan` and `eval_shape` agree with plain calls, and steps are traced once.
    - The state keeps its types under every mix of float32 and bfloat16, and shares no memory with the parameters.
    - None leaves, the empty tree, scalars and leaves of size zero work.
    - State and transformation survive flattening and pickling.
    - `params` may be a keyword, or left out unless the error asks for them; unknown keywords are tolerated.

    In your own tests: `check_contract(mine(0.1), {"w": jnp.ones((2, 3))})`.

    Args:
      tx: any object with `init` and `update`.
      params: a small tree of arrays.
      gradients: a tree like `params`; None for normal numbers, the same at each call.
      steps: how many steps to run, at least 2.
      **extra: keyword arguments of `update`. Functions among them must accept any tree; trees like `params` are
        replaced where a clause tests other parameters.

    Raises:
      AssertionError: naming the transformation, the clause, the leaf and what was found there.
    """
    check_transformation("check_contract: tx", tx)
    if steps < 2:
        raise ValueError(f"check_contract: steps must be at least 2, to see a second update, got {steps}")
    case = make_case(tx, params, gradients, steps, extra)
    for name, clause in CLAUSES.items():
        where = f"check_contract: {shortened(repr(tx), 100)} breaks {name!r}"
        try:
            clause(case)
        except Broken as broken:
            raise AssertionError(f"{where}: {broken}") from None
        except Exception as error:  # of any class: an error where the contract allows none breaks the clause
            summary = str(error).partition("\n")[0]
            raise AssertionError(f"{where}: it raised {type(error).__name__}: {summary}") from error
