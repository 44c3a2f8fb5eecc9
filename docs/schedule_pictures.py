# SPDX-License-Identifier: Apache-2.0
"""Draws every schedule and every operation on them in one picture: docs/images/schedules.png, for docs/schedules.md.

    python docs/schedule_pictures.py              draws it
    python docs/schedule_pictures.py --out FILE   somewhere else

A panel is headed by the name; what it draws is the expression behind it. A test fails if a name is missing.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image  # which comes with matplotlib

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import gradtx  # noqa: E402  # behind the path
from gradtx.plot._plot import COLORS, FAINT, GRID, INK  # noqa: E402

NAMES = {**vars(gradtx), **vars(gradtx.schedules)}

OUT = ROOT / "docs" / "images" / "schedules.png"
STEPS = 100
COLUMNS = 4

CYCLE = "dict(init_value=0.1, peak_value={}, warmup_steps=8, decay_steps={})"

SCHEDULES: dict[str, str] = {
    "constant_schedule": "constant_schedule(0.5)",
    "piecewise_values_schedule": "piecewise_values_schedule([30, 60], [1.0, 0.3, 0.6])",
    "piecewise_constant_schedule": "piecewise_constant_schedule(1.0, {30: 0.5, 60: 0.5})",
    "linear_schedule": "linear_schedule(1.0, 0.1, 70, 15)",
    "polynomial_schedule": "polynomial_schedule(1.0, 0.1, 2.0, 25, cycle=True)",
    "exponential_decay": "exponential_decay(1.0, 30, 0.4)",
    "natural_exponential_decay": "natural_exponential_decay(1.0, 25, 0.5, staircase=True)",
    "inverse_time_decay": "inverse_time_decay(1.0, 25, 1.5)",
    "step_decay_schedule": "step_decay_schedule(1.0, 20)",
    "cosine_decay_schedule": "cosine_decay_schedule(1.0, 90, 0.1)",
    "warmup_constant_schedule": "warmup_constant_schedule(0.1, 1.0, 30)",
    "warmup_cosine_decay_schedule": "warmup_cosine_decay_schedule(0.0, 1.0, 20, 95, 0.1)",
    "warmup_exponential_decay_schedule": "warmup_exponential_decay_schedule(0.0, 1.0, 20, 25, 0.4)",
    "wsd_schedule": "wsd_schedule(0.0, 1.0, 15, 50, 30, shape='1-sqrt')",
    "sgdr_schedule": f"sgdr_schedule([{CYCLE.format(1.0, 30)}, {CYCLE.format(0.7, 65)}])",
    "cyclic_schedule": "cyclic_schedule(0.1, 1.0, 15, mode='triangular2')",
    "linear_onecycle_schedule": "linear_onecycle_schedule(100, 1.0)",
    "cosine_onecycle_schedule": "cosine_onecycle_schedule(100, 1.0)",
    "piecewise_interpolate_schedule": "piecewise_interpolate_schedule('cosine', 0.3, {30: 3.0, 50: 0.5, 90: 0.1})",
    "join_schedules": "join_schedules([linear(40), cosine(40)], [30])",
    "power_schedule": "power_schedule(1.0, 32, 2000.0)",
    "chebyshev_schedule": "chebyshev_schedule(64, 0.05, 1.0)",
    "multiplicative_schedule": "multiplicative_schedule(1.0, linear_schedule(1.01, 0.9, 100), 100)",
    "ademamix_alpha_schedule": "ademamix_alpha_schedule(1.0, 70)",
    "ademamix_b3_schedule": "ademamix_b3_schedule(0.999, 100)",
    "warmup": "warmup(60)",
    "constant": "constant(60)",
    "linear": "linear(80)",
    "cosine": "cosine(80)",
    "one_minus_sqrt": "one_minus_sqrt(80)",
    "one_minus_square": "one_minus_square(80)",
    "rex": "rex(80)",
    "inverse_sqrt": "inverse_sqrt(8)",
    ".then": "warmup(25).then(cosine(60))",
    ".scale": "inverse_sqrt(30) * linear(60, end=0.3)",
    ".add": "cosine(30) * 0.5 + linear(90)",
    ".subtract": "linear(90) - warmup(45) * 0.3",
    ".divide": "linear(90) / (1 + warmup(30))",
    ".clip": "cosine(90).clip(0.2, 0.8)",
    ".shift": "linear(40).shift(45)",
    ".until": "inverse_sqrt(30) * linear(30).until(100)",
    ".stretch": "piecewise_values_schedule([1, 3], [1.0, 0.5, 0.2]).stretch(25)",
    ".staircase": "cosine(90).staircase(15)",
    ".repeat": "warmup(3).then(cosine(11)).repeat(growth=2.0, factor=0.8)",
}
"""What is drawn, by the name of the factory or of the method."""


def color(name: str) -> str:
    """One for schedules in units of the rate, one for pieces in units of the peak, one for operations."""
    if name.startswith("."):
        return COLORS[2]
    return COLORS[1] if NAMES[name].__module__.endswith("_pieces") else COLORS[0]


def draw(out: Path) -> None:
    rows = -(-len(SCHEDULES) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * 2.0, rows * 1.25), dpi=150, layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharex=True)
    counts = np.arange(0, STEPS + 1e-9, 0.125)
    for axes, (name, call) in zip(grid.flat, SCHEDULES.items(), strict=False):
        value = eval(call, dict(NAMES))
        values = np.asarray(value(counts.astype(np.float32)))
        axes.plot(counts, values, color=color(name), linewidth=1.6)
        axes.set_title(name.replace("_schedule", "_\nschedule") if len(name) > 26 else name, fontsize=7.5, color=INK)
        if values.min() < 0.8 * values.max():
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(color=FAINT, labelcolor=INK, labelsize=6.5, length=2)
        axes.set_xticks([0, 50, 100])
        axes.grid(True, color=GRID, linewidth=0.5)
    for axes in grid.flat[len(SCHEDULES) :]:
        axes.set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture)
    Image.open(picture).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, optimize=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="the file (default: docs/images/schedules.png)")
    draw(parser.parse_args(argv).out)


if __name__ == "__main__":
    main()
