# SPDX-License-Identifier: Apache-2.0
"""Plots of training: paths on contours, curves, schedules. Each function returns a `matplotlib.figure.Figure`.

pyplot is not used: no window opens, no global state changes. Save a figure with `figure.savefig("name.png")`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._checked import checked
from gradtx.core._kinds import Levels, Pair, Point, Ranges, Texts
from gradtx.core._ranges import PositiveInt

try:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
except ImportError as error:
    raise ImportError("gradtx.plot needs matplotlib: install the extra with `pip install 'gradtx[plot]'`") from error

# Okabe and Ito's colors, which people with any color vision can tell apart, without their yellow, too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#333333", "#56B4E9")
# For lines that cross: after the last color, colors repeat with the next dash pattern.
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
INK, FAINT, GRID, STAR = "#333333", "#C4C4C4", "#E6E6E6", "#F5C518"
_BOWL = LinearSegmentedColormap.from_list("bowl", ["#FFFFFF", "#C9D4E0"])

DPI = 150
LEGEND = 1.6
"""The width of a legend beside the panels, in inches."""


@checked
def plot_paths(
    f: Callable[[jax.Array], Any],
    paths: Mapping[str, Any],
    *,
    bounds: Ranges,
    levels: Levels = 8,
    minimum: Point | None = None,
    labels: Pair = ("θ₁", "θ₂"),
) -> Figure:
    """The paths of optimizers on the contours of a function of two parameters, in one panel each.

    Args:
      f: a pure function from an array of shape (2,) to a number; it is mapped over a grid with `jax.vmap`.
      paths: by name, the points of each path as an array of shape (n, 2), the start first.
      bounds: the range that is drawn, ((left, right), (bottom, top)).
      levels: the values of f with contours, or the number of contours, which are then spaced by equal factors.
      minimum: a point to mark with a star; None for no mark.
      labels: the names of the two parameters.
    """
    arrays = _checked("plot_paths", paths)
    figure, panels = _panels(len(arrays), share=True)
    contours = _Contours(f, bounds, levels)
    for i, (axes, (name, path)) in enumerate(zip(panels, arrays.items(), strict=True)):
        color = _color(i)
        contours.draw(axes)
        axes.plot(*path.T, color=color, linewidth=1.6, marker="o", markersize=2.2, markeredgewidth=0, zorder=3)
        _mark(axes, path[0], minimum)
        _finish(axes, name, title_color=color, grid=False)
    _outer_labels(panels, *labels)
    return figure


class Race(NamedTuple):
    """A function of two parameters and paths on it; the fields are the arguments of `plot_paths`."""

    f: Callable[[jax.Array], Any]
    paths: Mapping[str, Any]
    bounds: Sequence[tuple[float, float]]
    minimum: Sequence[float] | None = None
    levels: int | Sequence[float] = 8


@checked
def plot_races(races: Mapping[str, Race], *, labels: Pair = ("θ₁", "θ₂")) -> Figure:
    """The paths of several optimizers on the contours of functions, with one panel for each function.

    An optimizer has the same color in all panels. A path ends in a dot of its color.

    Args:
      races: a `Race` for each panel, by the panel's title.
      labels: the names of the two parameters.
    """
    arrays = {title: _checked("plot_races", race.paths) for title, race in races.items()}
    names = list(dict.fromkeys(name for paths in arrays.values() for name in paths))
    styles = {n: {"color": _color(i), "linestyle": DASHES[i // len(COLORS) % len(DASHES)]} for i, n in enumerate(names)}
    figure, panels = _panels(len(races), share=False)
    figure.set_figwidth(figure.get_figwidth() + LEGEND)
    for axes, (title, race) in zip(panels, races.items(), strict=True):
        _Contours(race.f, race.bounds, race.levels).draw(axes)
        for name, path in arrays[title].items():
            axes.plot(*path.T, **styles[name], linewidth=1.5, alpha=0.9, zorder=3)
            axes.plot(*path[-1], "o", color=styles[name]["color"], markersize=4.5, markeredgewidth=0, zorder=3.5)
            _mark(axes, path[0], race.minimum)
        _finish(axes, title, grid=False)
    _legend(figure, [Line2D([], [], **styles[n], linewidth=2.2, label=n) for n in names], beside=True)
    _outer_labels(panels, *labels)
    return figure


@checked
def plot_curves(
    curves: Mapping[str, Mapping[str, Any]],
    *,
    xlabel: str = "epoch",
    log: Texts = (),
    start: int = 1,
    background: str | None = None,
) -> Figure:
    """Named curves in panels, such as the loss and the accuracy of several optimizers, with one color for each name.

    Args:
      curves: panel title -> curve name -> values of shape (n,), or (runs, n), of which the mean is drawn and the range
        shaded.
      xlabel: the label of the horizontal axis: the unit in which values are counted.
      log: the titles of the panels with a logarithmic scale.
      start: the horizontal position of the first value.
      background: the name of a curve that is drawn in gray below the others, for comparison; None for none.
    """
    names = list(dict.fromkeys(name for panel in curves.values() for name in panel))
    colors = dict(zip([n for n in names if n != background], map(_color, range(len(names))), strict=False))
    figure, panels = _panels(len(curves), share=False)
    for axes, (title, panel) in zip(panels, curves.items(), strict=True):
        for name, values in panel.items():
            runs = np.atleast_2d(np.asarray(values))
            steps = np.arange(start, start + runs.shape[1])
            if name == background:
                axes.plot(steps, runs.mean(0), color=FAINT, linewidth=0.9, zorder=1.5)
                continue
            axes.plot(steps, runs.mean(0), color=colors[name], linewidth=1.7, zorder=3)
            if len(runs) > 1:
                axes.fill_between(steps, runs.min(0), runs.max(0), color=colors[name], alpha=0.18, linewidth=0)
        if title in log:
            axes.set_yscale("log")
        foreground = [n for n in panel if n != background]
        _finish(axes, title, title_color=colors[foreground[0]] if len(foreground) == 1 < len(names) else INK)
        axes.margins(x=0.02)
    _legend(figure, [Line2D([], [], color=colors.get(n, FAINT), linewidth=2.2, label=n) for n in names])
    _outer_labels(panels, xlabel, "")
    return figure


@checked
def plot_schedules(schedules: Mapping[str, Callable[..., Any]], steps: PositiveInt, *, log: bool = False) -> Figure:
    """The values of schedules at the first `steps` updates, in one panel.

    Args:
      schedules: by name, functions of the number of updates made.
      steps: how many updates to show, from count 0 on.
      log: whether the scale of the values is logarithmic.
    """
    counts = np.arange(steps)
    figure = Figure(figsize=(6.4, 3.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for i, (name, schedule) in enumerate(schedules.items()):
        # One by one: a schedule may be any function of a scalar, even with Python control flow.
        values = [float(schedule(int(count))) for count in counts]
        style = "steps-post" if _is_staircase(values) else "default"
        axes.plot(counts, values, color=_color(i), linewidth=1.7, drawstyle=style, label=name)
    if log:
        axes.set_yscale("log")
    _finish(axes, "")
    axes.margins(x=0.02)
    axes.set_xlabel("updates made", color=INK, fontsize=10)
    axes.set_ylabel("value", color=INK, fontsize=10)
    _legend(figure, axes.get_lines())
    return figure


def _checked(where: str, paths: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(path) for name, path in paths.items()}
    for name, path in arrays.items():
        if path.ndim != 2 or path.shape[1] != 2 or not len(path):
            raise ValueError(f"{where}: paths[{name!r}] must have shape (n, 2), got {path.shape}")
    return arrays


class _Contours:
    """The contours of a function, computed once and drawn in any number of panels."""

    def __init__(self, f: Callable[..., Any], bounds: Sequence[tuple[float, float]], levels: int | Sequence[float]):
        self.bounds, self.grid = bounds, _grid(f, bounds)
        z = self.grid[2]
        self.levels = _log_levels(z, levels) if isinstance(levels, int) else np.sort(np.asarray(levels, float))

    def draw(self, axes: Axes) -> None:
        if len(self.levels) > 1:
            norm = LogNorm(self.levels[0], self.levels[-1])
            axes.contourf(*self.grid, self.levels, cmap=_BOWL, norm=norm, extend="both", zorder=0)
            axes.contour(*self.grid, self.levels, colors="#FFFFFF", linewidths=0.8, zorder=1)
        axes.set(xlim=self.bounds[0], ylim=self.bounds[1])


def _mark(axes: Axes, start: np.ndarray, minimum: Sequence[float] | None) -> None:
    axes.plot(*start, "o", color="white", markeredgecolor=INK, markersize=5.5, markeredgewidth=1, zorder=4)
    if minimum is not None:
        axes.plot(*minimum, "*", color=STAR, markeredgecolor=INK, markersize=11, markeredgewidth=0.7, zorder=5)


def _grid(f: Callable, bounds: Sequence[tuple[float, float]], resolution: int = 161) -> tuple:
    x, y = (np.linspace(*b, resolution, dtype=np.float32) for b in bounds)
    points = jnp.stack(jnp.meshgrid(jnp.asarray(x), jnp.asarray(y)), axis=-1).reshape(-1, 2)
    return x, y, np.asarray(jax.vmap(f)(points)).reshape(resolution, resolution)


def _log_levels(z: np.ndarray, number: int) -> np.ndarray:
    """Levels spaced by equal factors, from the lowest values on the grid, the minimum aside, to the highest value."""
    high = np.nanmax(z)
    positive = z[z > 0]
    low = max(np.quantile(positive, 0.002), high * 1e-6) if positive.size else 0.0
    return np.geomspace(low, high, number) if 0 < low < high else np.asarray([])


def _is_staircase(values: Sequence[float]) -> bool:
    changes = np.diff(values)
    return bool(np.any(changes != 0) and np.mean(changes == 0) > 0.5)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _panels(number: int, share: bool) -> tuple[Figure, list[Axes]]:
    """A figure with this number of panels, at most three in a row, and its panels."""
    columns = 2 if number == 4 else max(min(number, 3), 1)
    rows = max(math.ceil(number / columns), 1)
    width, height = (2.75, 2.25) if columns > 2 else (4.4, 3.3)  # inches
    figure = Figure(figsize=(columns * width, rows * height), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False)
    for axes in grid.flat[number:]:
        axes.set_visible(False)
    return figure, list(grid.flat[:number])


def _finish(axes: Axes, title: str, *, title_color: str = INK, grid: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=title_color)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=9, which="both")
    if grid:
        axes.grid(True, color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)


def _outer_labels(panels: list[Axes], xlabel: str, ylabel: str) -> None:
    """Labels only the panels at the left and lower edges of the grid."""
    for axes in panels:
        place = axes.get_subplotspec()
        below = [other.get_subplotspec() for other in panels]
        if place is None:
            continue
        if not any(b and b.colspan == place.colspan and b.rowspan.start > place.rowspan.start for b in below):
            axes.set_xlabel(xlabel, color=INK, fontsize=10)
        if ylabel and place.is_first_col():
            axes.set_ylabel(ylabel, color=INK, fontsize=10)


def _legend(figure: Figure, handles: Sequence[Line2D], *, beside: bool = False) -> None:
    """A legend outside of the panels, where it hides no curve: above them in rows, or beside them in a column."""
    above = min(len(handles), 6 if figure.get_figwidth() > 8 else 4)
    figure.legend(
        handles=list(handles),
        loc="outside right upper" if beside else "outside upper left",
        ncols=1 if beside else above,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.6,
    )
