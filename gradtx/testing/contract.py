# SPDX-License-Identifier: Apache-2.0
"""The contract of a transformation, as a check that anybody can run."""

from typing import Any

from gradtx.core.transformation import check_transformation
from gradtx.testing.case import make_case
from gradtx.testing.clauses import CLAUSES
from gradtx.testing.compare import Broken


def check_contract(tx: Any, params: Any, *, gradients: Any = None, steps: int = 3, **extra: Any) -> None:
    """Runs a transformation, gradtx's, Optax's or your own, and fails at the first clause of the contract it breaks.

    The clauses: it is deterministic; it changes no input; `jax.eval_shape` of `init` works; under `jit` it gives the
    same and is traced once; `update` returns a state of the types of `init` under all mixes of float32 and bfloat16;
    updates have the gradients' structure and shapes; it runs in `scan`; state and parameters share no memory; None
    leaves, the empty tree, scalars and leaves of size zero work; state and transformation survive flattening and
    pickling; `params` may be given by keyword, or left out unless the error says it is needed; unknown keyword
    arguments are tolerated. In a test: `check_contract(mine(0.1), {"w": jnp.ones((2, 3))})`.

    Args:
      tx: any object with `init` and `update`.
      params: a small tree of arrays.
      gradients: a tree like it; by default pseudo-random, the same at each call.
      steps: how many steps to run, at least 2.
      **extra: for `update`. Functions among them must accept any tree; trees like `params` are replaced by gradients
        where a clause needs another tree.

    Raises:
      AssertionError: naming the transformation, the clause, the leaf and what was found there.
    """
    check_transformation("check_contract: tx", tx)
    if steps < 2:
        raise ValueError(f"check_contract: steps must be at least 2, to see a second update, got {steps}")
    case = make_case(tx, params, gradients, steps, extra)
    for name, clause in CLAUSES.items():
        where = f"check_contract: {_shown(tx)} breaks {name!r}"
        try:
            clause(case)
        except Broken as broken:
            raise AssertionError(f"{where}: {broken}") from None
        except Exception as error:  # of any class: an error where the contract allows none breaks the clause
            raise AssertionError(f"{where}: it raised {type(error).__name__}: {error}") from error


def _shown(tx: Any) -> str:
    text = repr(tx)
    return text if len(text) <= 100 else text[:97] + "..."
