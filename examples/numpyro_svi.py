# SPDX-License-Identifier: Apache-2.0
# An extra of its own, `solvers`, has what this imports.
# pyright: reportMissingImports=false
"""gradtx inside of numpyro: stochastic variational inference of a regression, beside the exact posterior.

`optax_to_numpyro` takes anything with `init` and `update`. The model is a line with known noise, so that the posterior
of its two coefficients is a normal distribution in closed form, which a normal guide can reach.

    python examples/numpyro_svi.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.optim import optax_to_numpyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gradtx

NOISE = 0.5


def model(design: jax.Array, y: jax.Array) -> None:
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(design @ w, NOISE), obs=y)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="default: 2000")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console = Console(quiet=args.quiet)
    rng = np.random.default_rng(0)
    design = np.stack([np.ones(50), rng.uniform(-1, 1, 50)], axis=1).astype(np.float32)
    y = (design @ [0.5, -1.0] + NOISE * rng.normal(size=50)).astype(np.float32)

    guide = AutoMultivariateNormal(model)
    tx = gradtx.adam(gradtx.cosine_decay_schedule(0.02, args.steps))
    svi = SVI(model, guide, optax_to_numpyro(tx), Trace_ELBO(num_particles=8))
    state = svi.init(jax.random.key(0), design, y)
    step, losses = jax.jit(svi.update), []
    for _ in track(range(args.steps), "variational inference", console=console):
        state, loss = step(state, design, y)
        losses.append(loss)
    normal = guide.get_posterior(svi.get_params(state))

    precision = np.eye(2) + design.T @ design / NOISE**2
    exact = np.linalg.solve(precision, design.T @ y / NOISE**2), np.sqrt(np.diag(np.linalg.inv(precision)))
    found = np.asarray(normal.mean), np.sqrt(np.diag(np.asarray(normal.covariance_matrix)))
    table = Table("coefficient", "exact mean", "found", "exact deviation", "found")
    for i, name in enumerate(("offset", "slope")):
        table.add_row(name, *(f"{x[i]:.3f}" for x in (exact[0], found[0], exact[1], found[1])))
    console.print(table)
    return {"exact": exact, "found": found, "losses": np.asarray(jnp.stack(losses))}


if __name__ == "__main__":
    main()
