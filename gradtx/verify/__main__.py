# SPDX-License-Identifier: Apache-2.0
"""Runs the contract on a transformation, of whatever library, and prints what came of each clause.

    python -m gradtx.verify "optax:adamw(1e-3)"
    python -m gradtx.verify my_module:my_factory --formula my_module:in_numpy

A factory is called without arguments. The exit status is 0 if no clause is broken, 1 if one is, 2 if the command itself
cannot be done.
"""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._needs import needs
from gradtx.core._nesting import is_transformation
from gradtx.core._sentences import shortened
from gradtx.testing._case import example_gradients, make_case
from gradtx.testing._contract import BEYOND, CLAUSES, Verdict, outcomes, with_formula
from gradtx.verify._named_objects import Unusable, called, named_object

PASS, FAIL, ALLOWED, NOTHING = "pass", "FAIL", "allowed", "n/a"
DEVICES = 8


def main(argv: Sequence[str] | None = None) -> int:
    clauses = {**CLAUSES, **BEYOND}
    parser = argparse.ArgumentParser(
        prog="python -m gradtx.verify",
        description=__doc__,
        epilog=f"The clauses are: {', '.join([*clauses, 'formula'])}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("transformation", help="module:name of a transformation or factory, or module:call(...)")
    parser.add_argument(
        "--formula", help="module:name of the run in NumPy: formula(gradients of each step, params) -> params"
    )
    parser.add_argument("--params", help="module:name of a small tree of parameters, or of a function that makes it")
    parser.add_argument("--allow", default="", help="names of clauses that may be broken, with commas between them")
    parser.add_argument("--devices", type=int, default=DEVICES, help=f"of the CPU, for 'sharded' (default: {DEVICES})")
    args = parser.parse_args(argv)
    allowed = {name.strip() for name in args.allow.split(",")} - {""}
    try:
        set_devices(args.devices)
        formula = named_object(args.formula) if args.formula else None
        if formula is not None and not callable(formula):
            raise Unusable(f"{args.formula} must be a function of gradients and parameters, got {formula!r}")
        clauses = with_formula(clauses, formula)
        if unknown := sorted(allowed - set(clauses)):
            raise Unusable(f"--allow: there is no clause {unknown[0]!r}; there are {', '.join(clauses)}")
        tx = transformation(args.transformation)
        params = parameters(args.params)
        extra = extra_arguments(tx, params)
    except Unusable as reason:
        print(f"gradtx.verify: {reason}", file=sys.stderr)
        return 2
    print(args.transformation)
    words: dict[str, str] = {}
    for outcome in outcomes(make_case(tx, params, None, 3, extra), clauses):
        words[outcome.clause] = word_for(outcome, allowed)
        print(row(outcome, words[outcome.clause], width=max(map(len, clauses))), flush=True)
    found = list(words.values())
    counts = ", ".join(f"{found.count(word)} {word}" for word in (PASS, FAIL, ALLOWED, NOTHING))
    broken = [clause for clause, word in words.items() if word == FAIL]
    print(f"{counts}: {', '.join(broken)}" if broken else counts)
    return 1 if broken else 0


def word_for(outcome: Verdict, allowed: set[str]) -> str:
    if outcome.holds is None:
        return NOTHING
    return PASS if outcome.holds else ALLOWED if outcome.clause in allowed else FAIL


def set_devices(count: int) -> None:
    """Gives the CPU so many devices, where nobody has chosen and nothing has run yet."""
    if count < 1:
        raise Unusable(f"--devices must be at least 1, got {count}")
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # in a process that has run something; the clause says how many there are
        pass


def transformation(text: str) -> Any:
    found = named_object(text)
    if not is_transformation(found) and callable(found):
        found = called(found, f"{text}()")
    if not is_transformation(found):
        raise Unusable(f"{text} must be a transformation (an object with init and update) or a factory of one")
    return found


def parameters(text: str | None) -> Any:
    if text is None:
        return {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.full(3, 0.5)}
    found = named_object(text)
    found = called(found, f"{text}()") if callable(found) else found
    if not all(hasattr(x, "shape") and hasattr(x, "dtype") for x in jax.tree.leaves(found)):
        raise Unusable(f"{text} must be a tree of arrays, got {shortened(repr(found), 100)}")
    return found


def half_square(params: Any) -> jax.Array:
    """A loss of any tree of parameters, for transformations that ask for one."""
    squares = [jnp.sum(jnp.square(jnp.abs(p).astype(jnp.float32))) for p in jax.tree.leaves(params)]
    return 0.5 * sum(squares, start=jnp.zeros([], jnp.float32))


def extra_arguments(tx: Any, params: Any) -> dict[str, Any]:
    """The loss, its gradients and the loss function, for an `update` that cannot do without."""
    known = {"value": jnp.asarray(1.5, jnp.float32), "value_fn": half_square, "obj_fn": half_square}
    known["grad"] = gradients = example_gradients(params)
    if unknown := sorted(needs(tx) - set(known)):
        raise Unusable(
            f"update needs {unknown[0]}, which this command does not have: call gradtx.testing.check_contract"
        )
    try:
        jax.eval_shape(lambda g, p: tx.update(g, tx.init(p), p), gradients, params)
    except Exception:  # of any class: if it is not for want of arguments, clauses will tell
        return {n: x for n, x in known.items() if n in needs(tx)} or {
            n: known[n] for n in ("value", "value_fn", "grad")
        }
    return {}


def row(outcome: Verdict, word: str, width: int) -> str:
    """A line for each clause, or more where the sentence is long."""
    start = f"{outcome.clause:{width}}  {word:7}  "
    columns = max(shutil.get_terminal_size((120, 24)).columns, len(start) + 40)
    sentence = shortened(outcome.sentence, 400)
    return textwrap.fill(sentence, columns, initial_indent=start, subsequent_indent=" " * len(start))


if __name__ == "__main__":
    sys.exit(main())
