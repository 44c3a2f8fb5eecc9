# SPDX-License-Identifier: Apache-2.0
"""How step, trace and compilation grow with the number of leaves and of parameters: docs/images/growth.png."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from . import trees
from .cases import FIRST_ORDER, paired
from .measures import Result
from .measures import measured as measured_case
from .tables import cell, table
from .timing import Effort

OUT = Path(__file__).resolve().parents[2] / "docs" / "images" / "growth.png"
MEASURES = {"compiled step": ("step",), "tracing and lowering": ("trace", "lower"), "compiling": ("compile",)}
"""What a panel shows: the sum of these."""
LIBRARIES = {"gradtx": "gradtx", "optax": "Optax"}


class Axis(NamedTuple):
    """What grows: the parameters at each place, and how far each recipe is measured."""

    title: str
    params: Callable[[int], trees.Params]
    places: dict[str, Sequence[int]]


def in_ten_leaves(numbers: int) -> trees.Params:
    return trees.random({f"leaf{i}": (numbers // 1000, 100) for i in range(10)})


LEAVES = (10, 100, 1_000, 10_000)
NUMBERS = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
AXES = {
    # Clipping, and with it compilation, ends earlier: a condition for each leaf takes minutes to compile.
    "leaves": Axis("leaves of 1,000 numbers", trees.small_leaves, {"adam": LEAVES, "clip_adamw": LEAVES[:-1]}),
    "numbers": Axis("numbers in 10 leaves", in_ten_leaves, {"adam": NUMBERS, "clip_adamw": NUMBERS}),
}


def measured(quick: bool, effort: Effort) -> Iterator[Result]:
    """Both recipes along both axes; a result's table is its axis."""
    names = [name for measures in MEASURES.values() for name in measures]
    for which, axis in AXES.items():
        for recipe, places in axis.places.items():
            for n in places[:2] if quick else places:
                case = paired(f"{recipe}/{n}", FIRST_ORDER[recipe], partial(axis.params, n))
                yield measured_case(which, case, names, effort)


def page(results: Sequence[Result]) -> str:
    """A table for each axis."""
    names = [name for measures in MEASURES.values() for name in measures]
    parts = []
    for which, axis in AXES.items():
        rows = []
        for r in results:
            if r.table == which:
                recipe, place = r.case.split("/")
                rows.append([f"`{recipe}`", f"{int(place):,}", *(cell(r, m, "gradtx") for m in names)])
        parts.append(table(["", axis.title, *names], rows))
    return "\n".join(parts)


def curve(results: Sequence[Result], which: str, recipe: str, who: str, panel: str) -> tuple[list[int], list[float]]:
    """The places along an axis, and the seconds there."""
    found = [r for r in results if r.table == which and r.case.startswith(f"{recipe}/")]
    places = [int(r.case.split("/")[1]) for r in found]
    return places, [sum(r.values[m][who] for m in MEASURES[panel]) for r in found]


def draw(results: Sequence[Result], out: Path) -> None:
    # Only here: neither matplotlib nor what it brings is needed for numbers.
    from matplotlib.figure import Figure
    from PIL import Image

    from gradtx.plot._plot import COLORS, FAINT, GRID, INK

    figure = Figure(figsize=(9.6, 5.6), dpi=100, layout="constrained")
    rows = figure.subplots(len(AXES), len(MEASURES))
    for row, (which, axis) in zip(rows, AXES.items(), strict=True):
        for axes, panel in zip(row, MEASURES, strict=True):
            for recipe, line in zip(axis.places, ("-", "--"), strict=True):
                for color, (who, name) in zip(COLORS, LIBRARIES.items(), strict=False):
                    style = {"color": color, "linestyle": line, "marker": "o", "markersize": 3, "linewidth": 1.6}
                    axes.loglog(*curve(results, which, recipe, who, panel), label=f"{name}, {recipe}", **style)
            axes.set_title(panel, fontsize=9, color=INK)
            axes.set_xlabel(axis.title, fontsize=8, color=INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(FAINT)
            axes.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=7, length=2)
            axes.grid(True, color=GRID, linewidth=0.5)
        row[0].set_ylabel("seconds", fontsize=8, color=INK)
    rows[0][0].legend(frameon=False, fontsize=7, labelcolor=INK)
    picture = io.BytesIO()
    figure.savefig(picture)
    # A paletted picture of a few lines is a third of the size.
    Image.open(picture).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, optimize=True)
