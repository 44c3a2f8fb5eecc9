# SPDX-License-Identifier: Apache-2.0
# An extra of its own, `solvers`, has what this imports.
# pyright: reportMissingImports=false
"""gradtx inside of optimistix: its loop and its criterion of convergence, with any transformation as the method.

`optimistix.OptaxMinimiser` takes anything with `init` and `update`. The function is Rosenbrock's in ten dimensions; its
minimum is at (1, ..., 1). `gradtx.minimize` is beside it, for L-BFGS with a line search, which needs values as well.

    python examples/optimistix_fit.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optimistix
from rich.console import Console
from rich.table import Table

import gradtx

METHODS = {"adam": gradtx.adam(0.02), "nadam": gradtx.nadam(0.02), "adan": gradtx.adan(0.05)}


def rosenbrock(x: jax.Array, _: Any = None) -> jax.Array:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def main(argv: Sequence[str] | None = None) -> dict[str, tuple[int, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000, help="of each method, at most (default: 5000)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console, start, results = Console(quiet=args.quiet), jnp.zeros(10), {}
    for name, tx in METHODS.items():
        with console.status(name):
            solver = optimistix.OptaxMinimiser(tx, rtol=1e-6, atol=1e-6)
            done = optimistix.minimise(rosenbrock, solver, start, max_steps=args.steps, throw=False)
        results[name] = int(done.stats["num_steps"]), float(jnp.max(jnp.abs(done.value - 1)))
    lbfgs = gradtx.minimize(rosenbrock, start, max_steps=args.steps)
    results["minimize, L-BFGS"] = int(lbfgs.steps), float(jnp.max(jnp.abs(lbfgs.params - 1)))
    table = Table("method", "steps", "furthest from the minimum")
    for name, (steps, furthest) in results.items():
        table.add_row(name, str(steps), f"{furthest:.1e}")
    console.print(table)
    return results


if __name__ == "__main__":
    main()
