# SPDX-License-Identifier: Apache-2.0
"""How step, trace and compilation grow with the number of leaves and of parameters: docs/images/growth.png."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from . import trees
from .cases import FIRST_ORDER, Case, paired
from .measures import Result
from .measures import measured as measured_case
from .tables import cell, table
from .timing import Effort

OUT = Path(__file__).resolve().parents[2] / "docs" / "images" / "growth.png"
MEASURES = {"compiled step": ("step",), "tracing and lowering": ("trace", "lower"), "compiling": ("compile",)}
"""What a panel shows: the sum of these."""
LIBRARIES = {"gradtx": "gradtx", "optax": "Optax"}


class Axis(NamedTuple):
    """What grows: the parameters at each place, and what is drawn."""

    title: str
    params: Callable[[int], trees.Params]
    places: Sequence[int]
    panels: Sequence[str]


def in_ten_leaves(numbers: int) -> trees.Params:
    return trees.random({f"leaf{i}": (numbers // 1000, 100) for i in range(10)})


RECIPES = {"adam": "-", "clip_adamw": "--"}
"""By how their lines are drawn."""
LEAVES = (10, 100, 1_000, 10_000)
NUMBERS = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
AXES = {
    "leaves": Axis("leaves of 1,000 numbers", trees.small_leaves, LEAVES, tuple(MEASURES)),
    "numbers": Axis("numbers in 10 leaves", in_ten_leaves, NUMBERS, ("compiled step",)),
}
COMPILED = 1_000
"""The most leaves: for ten times as many, XLA needs ten gigabytes and minutes, in either library."""


def cases(quick: bool = False) -> list[tuple[str, Case]]:
    """Both recipes along both axes, each case with its axis, which is its table."""
    return [
        (which, paired(f"{recipe}/{n}", FIRST_ORDER[recipe], partial(axis.params, n)))
        for recipe in RECIPES
        for which, axis in AXES.items()
        for n in (axis.places[:2] if quick else axis.places)
    ]


def measured(which: str, case: Case, effort: Effort) -> Result:
    """All that is drawn of a case."""
    axis, place = AXES[which], int(case.name.split("/")[1])
    wanted = [measure for panel in axis.panels for measure in MEASURES[panel]]
    if which == "leaves" and place > COMPILED:
        wanted = ["trace", "lower"]
    return measured_case(which, case, wanted, effort)


def page(results: Sequence[Result]) -> str:
    """A table for each axis."""
    parts = []
    for which, axis in AXES.items():
        names = [measure for panel in axis.panels for measure in MEASURES[panel]]
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
    found = [r for r in found if set(MEASURES[panel]) <= r.values.keys()]
    places = [int(r.case.split("/")[1]) for r in found]
    return places, [sum(r.values[m][who] for m in MEASURES[panel]) for r in found]


def draw(results: Sequence[Result], out: Path) -> None:
    # Only here: neither matplotlib nor what it brings is needed for numbers.
    from matplotlib.figure import Figure
    from PIL import Image

    from gradtx.plot._plot import COLORS, FAINT, GRID, INK

    figure = Figure(figsize=(9.6, 5.6), dpi=100, layout="constrained")
    panels = [(which, panel) for which, axis in AXES.items() for panel in axis.panels]
    for axes, (which, panel) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for recipe, line in RECIPES.items():
            for color, (who, name) in zip(COLORS, LIBRARIES.items(), strict=False):
                style = {"color": color, "linestyle": line, "marker": "o", "markersize": 3, "linewidth": 1.6}
                axes.loglog(*curve(results, which, recipe, who, panel), label=f"{name}, {recipe}", **style)
        axes.set_title(panel, fontsize=9, color=INK)
        axes.set_xlabel(AXES[which].title, fontsize=8, color=INK)
        axes.set_ylabel("seconds", fontsize=8, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=7, length=2)
        axes.grid(True, color=GRID, linewidth=0.5)
    figure.axes[0].legend(frameon=False, fontsize=7, labelcolor=INK)
    picture = io.BytesIO()
    figure.savefig(picture)
    # A paletted picture of a few lines is a third of the size.
    Image.open(picture).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, optimize=True)
