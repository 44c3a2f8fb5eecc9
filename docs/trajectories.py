# SPDX-License-Identifier: Apache-2.0
"""Draws the paths of each family's recipes on two classic functions: docs/images/family_*.png, for the catalogue.

    python docs/trajectories.py                    all families
    python docs/trajectories.py --family Signs     those whose title has this in it
    python docs/trajectories.py --out FOLDER       somewhere else

Every recipe runs with each of `RATES` and otherwise with its defaults. Drawn is the path with the least mean logarithm
of the loss, of those that stay in the picture: one that is fast and does not jump about. Its points are those that the
method answers with, such as averages. Recipes with the same path share a line; one whose name is that of another with a
"w" for its decoupled weight decay is left out, and so are those of `ABSENT`.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from catalogue import FAMILIES, IMAGES, family, kind, pictures, registry, slug  # first: it sets the path
from PIL import Image, ImageColor  # which comes with matplotlib

import gradtx
from gradtx.core._calls import Factory
from gradtx.plot import Race, plot_races
from gradtx.plot._plot import COLORS, STAR

STEPS = 300
RATES = tuple(a * 10.0**b for b in range(-5, 2) for a in (1, 2, 5))
ARGUMENTS = {"delta_bar_delta": {"kappa": 1e-5}}
"""What is not left at its default: with 1e-3, rates grow in a step by more than the walls of these valleys bear."""
ABSENT = ("dpsgd", "muon", "normuon", "adamuon", "namo", "polargrad", "aurora", "dion", "dion2")
"""The first takes gradients of single examples, which a function has not; the others are Adam for what is no matrix."""
LINES = 6
"""The most paths in a picture; a larger family has several pictures."""


class Surface(NamedTuple):
    f: Callable[[jax.Array], jax.Array]
    start: tuple[float, float]
    minimum: tuple[float, float]
    bounds: tuple[tuple[float, float], tuple[float, float]]


def rosenbrock(p: jax.Array) -> jax.Array:
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def beale(p: jax.Array) -> jax.Array:
    x, y = p
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


SURFACES = {
    "Rosenbrock": Surface(rosenbrock, (-1.2, 1.0), (1.0, 1.0), ((-1.6, 1.4), (-0.4, 1.8))),
    "Beale": Surface(beale, (1.0, 1.5), (3.0, 0.5), ((-0.2, 4.2), (-1.0, 1.9))),
}


def best_path(tx: Any, surface: Surface) -> np.ndarray:
    """The start and the point after each step, with the best of the rates."""
    start = jnp.asarray(surface.start, jnp.float32)

    def run(tx: Any) -> jax.Array:
        def step(carry: tuple, _: None) -> tuple:
            point, state = carry
            value, grad = jax.value_and_grad(surface.f)(point)
            extra = {"value": value, "grad": grad, "value_fn": surface.f, "obj_fn": surface.f, "sampled_grad": grad}
            updates, state = tx.update(grad, state, point, **extra)
            point = gradtx.apply_updates(point, updates)
            return (point, state), gradtx.eval_params(state, point)

        return jax.lax.scan(step, (start, tx.init(start)), length=STEPS)[1]

    if "learning_rate" in tx.arguments:
        paths = jax.jit(jax.vmap(lambda rate: run(tx.replace(learning_rate=rate))))(jnp.asarray(RATES, jnp.float32))
    else:
        paths = jax.jit(run)(tx)[None]
    paths, losses = np.asarray(paths), np.asarray(jax.vmap(jax.vmap(surface.f))(paths))
    score = np.nan_to_num(np.mean(np.log(losses + 1e-6), axis=1), nan=1e4, posinf=1e4)
    low, high = np.asarray(surface.bounds).T
    inside = np.all((paths > low) & (paths < high), axis=(1, 2))
    best = paths[np.argmin(np.where(inside, score, score + 1e3))]
    return np.concatenate([start[None], best])


def shared(paths: dict[str, tuple[np.ndarray, ...]]) -> dict[str, list[str]]:
    """The names by the first of those that have the same paths on all surfaces."""
    groups: dict[str, list[str]] = {}
    for name, own in paths.items():
        same = [n for n in groups if all(np.allclose(a, b, atol=0.01) for a, b in zip(own, paths[n], strict=True))]
        groups.setdefault(same[0] if same else name, []).append(name)
    return groups


def draw(records: Sequence[Factory], out: Path) -> None:
    txs = {f.name: registry.example(f.name).replace(**ARGUMENTS.get(f.name, {})) for f in records}
    paths = {name: tuple(best_path(tx, s) for s in SURFACES.values()) for name, tx in txs.items()}
    groups = shared(paths)
    races = {}
    for i, (title, surface) in enumerate(SURFACES.items()):
        drawn = {"\n= ".join(names): paths[first][i] for first, names in groups.items()}
        races[title] = Race(surface.f, drawn, surface.bounds, surface.minimum)
    picture = io.BytesIO()
    plot_races(races, labels=("", "")).savefig(picture, dpi=110)
    reduced(Image.open(picture).convert("RGB")).save(out, optimize=True)


def reduced(image: Image.Image) -> Image.Image:
    """The picture in 256 colors, a third of the size: the frequent ones, and white, lines and star exactly."""
    exact = [ImageColor.getrgb(color) for color in ("white", *COLORS, STAR)]
    frequent = np.reshape(image.quantize(256 - len(exact)).getpalette() or [], (-1, 3))
    palette = np.concatenate([exact, frequent])
    # Pillow's own search for the nearest color is an approximation, which misses the exact ones.
    colors, places = np.unique(np.asarray(image, int).reshape(-1, 3), axis=0, return_inverse=True)
    nearest = np.argmin(np.sum((colors[:, None] - palette) ** 2, axis=-1), axis=1)
    new = Image.fromarray(nearest[places].reshape(image.height, image.width).astype(np.uint8))
    new.putpalette(palette.astype(np.uint8).tobytes())
    return new


def parts(title: str) -> list[list[Factory]]:
    """A family's recipes, a picture each, of about equal size."""
    found = {f.name: f for f in registry.FACTORIES.values() if kind(f) == "recipe" and family(f) == title}
    drawn = [f for n, f in sorted(found.items()) if n not in ABSENT and not (n.endswith("w") and n[:-1] in found)]
    number = -(-len(drawn) // LINES)
    return [[drawn[i] for i in part] for part in np.array_split(np.arange(len(drawn)), number)] if drawn else []


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="", help="draw the families whose title has this in it")
    parser.add_argument("--out", type=Path, default=IMAGES, help="the folder (default: docs/images)")
    args = parser.parse_args(argv)
    for title in FAMILIES:
        if args.family in title:
            for old in pictures(title) if args.out == IMAGES else []:
                old.unlink()
            for i, records in enumerate(parts(title)):
                draw(records, args.out / f"family_{slug(title)}{f'_{i + 1}' if i else ''}.png")


if __name__ == "__main__":
    main()
