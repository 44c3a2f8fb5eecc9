# SPDX-License-Identifier: Apache-2.0
"""A damped oscillator by L-BFGS, twice: its constants from noisy measurements, and its path from the equation alone.

The equation is x'' + 2 d x' + w^2 x = 0 with x(0) = 1, x'(0) = 0. First the damping d and the frequency w are fitted to
40 noisy measurements of x. Then d and w are known, x(t) is a small network, and what is minimized is how far it is from
fulfilling the equation at 64 times (a physics-informed network). `gradtx.minimize` runs both and counts evaluations, so
that Adam is compared at the same number of them. Numbers have 64 bits: with 32, a line search soon sees rounding only.

    python examples/physics.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import gradtx
from gradtx.plot import plot_curves

DAMPING, FREQUENCY, END = 0.3, 2.0, 6.0


def oscillation(t: Any, damping: Any, frequency: Any) -> Any:
    """The solution, for a damping below the frequency."""
    rate = jnp.sqrt(frequency**2 - damping**2)
    return jnp.exp(-damping * t) * (jnp.cos(rate * t) + damping / rate * jnp.sin(rate * t))


def misfit(constants: dict[str, jax.Array], t: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.mean((oscillation(t, **constants) - x) ** 2)


def init_network(key: jax.Array, width: int = 24) -> dict[str, jax.Array]:
    keys = jax.random.split(key, 3)
    return {
        "w1": jax.random.normal(keys[0], (1, width)),
        "b1": jax.random.normal(keys[1], (width,)),
        "w2": jax.random.normal(jax.random.fold_in(key, 2), (width, width)) * width**-0.5,
        "b2": jnp.zeros(width),
        "w3": jax.random.normal(keys[2], (width, 1)) * width**-0.5,
    }


def position(net: dict[str, jax.Array], t: jax.Array) -> jax.Array:
    """x(t), which begins at 1 and at rest whatever the network says."""
    hidden = jnp.tanh(t[None] @ net["w1"] + net["b1"])
    return 1 + t**2 * (jnp.tanh(hidden @ net["w2"] + net["b2"]) @ net["w3"])[0]


def residual(net: dict[str, jax.Array], times: jax.Array) -> jax.Array:
    """The mean square of x'' + 2 d x' + w^2 x."""
    velocity = jax.grad(position, 1)
    acceleration = jax.grad(velocity, 1)

    def left_side(t: jax.Array) -> jax.Array:
        return acceleration(net, t) + 2 * DAMPING * velocity(net, t) + FREQUENCY**2 * position(net, t)

    return jnp.mean(jax.vmap(left_side)(times) ** 2)


def solve(steps: int, out: str, console: Console) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    times = np.linspace(0, END, 40)
    noisy = np.asarray(oscillation(times, DAMPING, FREQUENCY)) + rng.normal(scale=0.05, size=times.shape)
    start = {"damping": jnp.asarray(0.1), "frequency": jnp.asarray(1.6)}
    measured = jnp.asarray(times), jnp.asarray(noisy)
    fit = gradtx.minimize(misfit, start, args=measured)
    table = Table("constant", "true", "from noisy measurements", title=f"{int(fit.evaluations)} evaluations")
    for name, true in (("damping", DAMPING), ("frequency", FREQUENCY)):
        table.add_row(name, f"{true:g}", f"{float(fit.params[name]):.3f}")
    console.print(table)

    inside = jnp.linspace(0.0, END, 64)
    truth = oscillation(inside, DAMPING, FREQUENCY)
    with console.status("L-BFGS on the network"):
        lbfgs = gradtx.minimize(residual, init_network(jax.random.key(0)), args=(inside,), max_steps=steps)
        evaluations = int(lbfgs.evaluations)
    with console.status("Adam, for as many evaluations"):
        adam = gradtx.minimize(
            residual, init_network(jax.random.key(0)), gradtx.adam(3e-3), args=(inside,), max_steps=evaluations
        )
    table = Table("method", "evaluations", "residual", "furthest from the solution")
    results: dict[str, Any] = {"fit": fit}
    curves = {"solution": np.asarray(truth)}
    for name, done in (("L-BFGS", lbfgs), ("Adam", adam)):
        path = jax.vmap(lambda t, net=done.params: position(net, t))(inside)
        furthest = float(jnp.max(jnp.abs(path - truth)))
        results[name], curves[name] = (int(done.evaluations), float(done.value), furthest), np.asarray(path)
        table.add_row(name, str(results[name][0]), f"{results[name][1]:.2e}", f"{furthest:.1e}")
    console.print(table)
    plot_curves({"Path of the oscillator": curves}, xlabel="time, in steps of 6 / 63").savefig(out)
    console.print(f"Picture: {out}")
    return results


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="of L-BFGS on the network, at most (default: 2000)")
    parser.add_argument("--out", default="physics.png", help="the picture of the path (default: physics.png)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    with jax.enable_x64(True):
        return solve(args.steps, args.out, Console(quiet=args.quiet))


if __name__ == "__main__":
    main()
