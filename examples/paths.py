# SPDX-License-Identifier: Apache-2.0
"""The paths of six optimizers to the minimum of a linear fit, and five decays that rescue a rate of 2.

The fit is y = w x + b to points on the line y = 2 x + 0.5, by the mean squared error: a long valley with its minimum at
(2, 0.5). Adam with rate 0.3 is there after 200 steps, plain descent with rate 0.05 is not.

The rates of 2 descend f(θ) = (θ - 3)² / 2, whose gradient is θ - 3: a step multiplies the distance from the minimum by
1 - rate, which is -1 for ever. Any decay that takes the rate below 2 but not to 0 too soon ends the oscillation.

    python examples/paths.py
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import gradtx
from gradtx.plot import plot_curves, plot_paths

MINIMUM = np.array([2.0, 0.5])
START = np.array([-1.0, 3.0], np.float32)
X = np.linspace(0, 2, 11, dtype=np.float32)
Y = 2 * X + 0.5

OPTIMIZERS = {
    "plain descent": gradtx.sgd(0.05),
    "momentum": gradtx.sgd(0.05, momentum=0.9),
    "Nesterov": gradtx.sgd(0.05, momentum=0.9, nesterov=True),
    "AdaGrad": gradtx.adagrad(0.5),
    "RMSProp": gradtx.rmsprop(0.05),
    "Adam": gradtx.adam(0.3),
}

BOTTOM, BEGIN, DECAY_STEPS = 3.0, 0.0, 50
DECAYS = {
    "constant": gradtx.constant_schedule(2.0),
    "exponential": gradtx.exponential_decay(2.0, transition_steps=10, decay_rate=0.9),
    "natural exponential": gradtx.natural_exponential_decay(2.0, transition_steps=10, decay_rate=0.4),
    "inverse time": gradtx.inverse_time_decay(2.0, transition_steps=10, decay_rate=0.8),
    "step": gradtx.step_decay_schedule(2.0, drop_steps=10),
    "polynomial": gradtx.polynomial_schedule(2.0, 0.1, power=2.0, transition_steps=100),
}


class Results(NamedTuple):
    """By name, the start and the point after each step: shape (steps + 1, 2) in `paths`, (steps + 1,) in `decays`."""

    paths: dict[str, np.ndarray]
    decays: dict[str, np.ndarray]


def mean_squared_error(parameters: jax.Array) -> jax.Array:
    return jnp.mean((parameters[0] * X + parameters[1] - Y) ** 2)


def parabola(theta: jax.Array) -> jax.Array:
    return (theta - BOTTOM) ** 2 / 2


def descend(tx: Any, f: Callable, start: Any, steps: int) -> np.ndarray:
    """The start and the point after each step, in one compiled loop."""

    @jax.jit
    def run(tx: Any, point: jax.Array) -> jax.Array:
        def step(carry: tuple, _: None) -> tuple:
            point, state = carry
            updates, state = tx.update(jax.grad(f)(point), state, point)
            point = gradtx.apply_updates(point, updates)
            return (point, state), point

        return jax.lax.scan(step, (point, tx.init(point)), length=steps)[1]

    start = jnp.asarray(start, jnp.float32)
    return np.concatenate([start[None], run(tx, start)])


def distance(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - MINIMUM, axis=-1)


def table_of_paths(paths: dict[str, np.ndarray], steps: int) -> Table:
    half = steps // 2
    table = Table("optimizer", f"distance at {half}", f"distance at {steps}", "slope", "intercept")
    table.title = f"After {half} and {steps} steps; the minimum is at ({MINIMUM[0]:g}, {MINIMUM[1]:g})"
    for column in table.columns[1:]:
        column.justify = "right"
    for name, path in paths.items():
        far = [f"{distance(path[i]):.1e}" for i in (half, steps)]
        table.add_row(name, *far, *(f"{x:.6f}" for x in path[steps]))
    return table


def table_of_decays(thetas: dict[str, np.ndarray]) -> Table:
    shown = (1, 2, 5, 10, 20, 50)
    table = Table("rate", *(f"t = {i}" for i in shown))
    table.title = f"θ after t steps from {BEGIN:g}; the minimum is at {BOTTOM:g}"
    for name, path in thetas.items():
        table.add_row(name, *(f"{path[i]:.3f}" for i in shown))
    return table


def draw_decays(thetas: dict[str, np.ndarray]) -> Figure:
    counts = range(DECAY_STEPS)
    panels = {"The rates": {name: [float(rate(t)) for t in counts] for name, rate in DECAYS.items()}}
    panels |= {f"θ, {name}": {"constant": thetas["constant"], name: thetas[name]} for name in DECAYS}
    del panels["θ, constant"]
    return plot_curves(panels, xlabel="step", start=0, background="constant")


def main(argv: Sequence[str] | None = None) -> Results:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="on the linear fit (default: 200)")
    parser.add_argument("--out", default="paths.png", help="picture of the paths (default: paths.png)")
    parser.add_argument("--decays-out", default="decays.png", help="picture of the decays (default: decays.png)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args(argv)
    console = Console(quiet=args.quiet)

    paths = {name: descend(tx, mean_squared_error, START, args.steps) for name, tx in OPTIMIZERS.items()}
    console.print(table_of_paths(paths, args.steps))
    figure = plot_paths(
        mean_squared_error,
        paths,
        bounds=((-1.5, 3.3), (-1.0, 3.8)),
        minimum=tuple(MINIMUM),
        labels=("slope w", "intercept b"),
    )
    figure.savefig(args.out)

    decays = {name: descend(gradtx.sgd(rate), parabola, BEGIN, DECAY_STEPS) for name, rate in DECAYS.items()}
    console.print(table_of_decays(decays))
    draw_decays(decays).savefig(args.decays_out)
    console.print(f"Pictures: {args.out}, {args.decays_out}")
    return Results(paths, decays)


if __name__ == "__main__":
    main()
