# SPDX-License-Identifier: Apache-2.0
"""How step, trace and compile grow with the number of leaves and of parameters: docs/images/growth.png."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from . import trees
from .cases import FIRST_ORDER, paired
from .measures import measured as measured_case
from .tables import seconds, table
from .timing import Effort

OUT = Path(__file__).resolve().parents[2] / "docs" / "images" / "growth.png"
MEASURES = {"step": "compiled step", "trace": "tracing", "compile": "compiling"}
LEAVES = (10, 30, 100, 300, 1_000, 3_000, 10_000)
NUMBERS = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
LIBRARIES = {"gradtx": "gradtx", "optax": "Optax"}
AXES = {"leaves": "leaves of 1,000 numbers", "numbers": "numbers in 10 leaves"}


class Curve(NamedTuple):
    """By measure and library, the seconds at each place."""

    places: Sequence[int]
    seconds: dict[str, dict[str, list[float]]]


def in_ten_leaves(numbers: int) -> trees.Params:
    return trees.random({f"leaf{i}": (numbers // 1000, 100) for i in range(10)})


def measured(quick: bool, effort: Effort) -> dict[str, Curve]:
    """AdamW along both axes; each place is printed at once, as the last ones take long."""
    makers = {"leaves": (trees.small_leaves, LEAVES), "numbers": (in_ten_leaves, NUMBERS)}
    found = {}
    for axis, (params, places) in makers.items():
        places = places[:2] if quick else places
        curves = {m: {who: [] for who in LIBRARIES} for m in MEASURES}
        header = [f"{title}, {name}" for title in MEASURES.values() for name in LIBRARIES.values()]
        print(table([AXES[axis], *header], []), end="")
        for n in places:
            case = paired(f"adamw/{n}", FIRST_ORDER["adamw"], partial(params, n))
            values = measured_case("growth", case, MEASURES, effort).values
            for measure, by_library in curves.items():
                for who, curve in by_library.items():
                    curve.append(values[measure][who])
            row = [f"{n:,}", *(seconds(values[m][who]) for m in MEASURES for who in LIBRARIES)]
            print(f"| {' | '.join(row)} |", flush=True)
        print()
        found[axis] = Curve(places, curves)
    return found


def draw(curves: dict[str, Curve], out: Path) -> None:
    # Only here: neither matplotlib nor what it brings is needed for numbers.
    from matplotlib.figure import Figure
    from PIL import Image

    from gradtx.plot._plot import COLORS, FAINT, GRID, INK

    figure = Figure(figsize=(9.6, 5.4), dpi=100, layout="constrained")
    grid = figure.subplots(len(curves), len(MEASURES), squeeze=False)
    for row, (axis, curve) in zip(grid, curves.items(), strict=True):
        for axes, (measure, title) in zip(row, MEASURES.items(), strict=True):
            for color, (who, times) in zip(COLORS, curve.seconds[measure].items(), strict=False):
                style = {"color": color, "marker": "o", "markersize": 3, "linewidth": 1.6}
                axes.loglog(curve.places, times, label=LIBRARIES[who], **style)
            axes.set_title(title, fontsize=9, color=INK)
            axes.set_xlabel(AXES[axis], fontsize=8, color=INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(FAINT)
            axes.tick_params(color=FAINT, labelcolor=INK, labelsize=7, length=2)
            axes.grid(True, color=GRID, linewidth=0.5)
        row[0].set_ylabel("seconds", fontsize=8, color=INK)
        row[0].legend(frameon=False, fontsize=8, labelcolor=INK)
    picture = io.BytesIO()
    figure.savefig(picture)
    Image.open(picture).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, optimize=True)
