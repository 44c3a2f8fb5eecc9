# SPDX-License-Identifier: Apache-2.0
"""The picture of a race: for each task the losses over the steps at the best rate, and the best losses by rate."""

import io
from typing import Any

import numpy as np

from gradtx.plot._plot import plot_curves
from gradtx.race._outcome import TaskResult
from gradtx.race._race_report import RaceReport


def picture(report: RaceReport) -> Any:
    """A figure of matplotlib with two panels for each task. Lines are means, bands ranges over seeds, dots targets."""
    titles = {result.task.rpartition(":")[2]: result for result in report.results}
    runs = {f"{t}: loss": {o.contender: o.curves[o.best] for o in r.outcomes} for t, r in titles.items()}
    rates = {f"{t}: by rate": {o.contender: _by_rate(o) for o in r.outcomes} for t, r in titles.items()}
    log = [f"{t}: {kind}" for t, r in titles.items() for kind in ("loss", "by rate") if _spans_decades(r)]
    figure = plot_curves(runs | rates, xlabel="", log=log, start=0)
    for axes, result in zip(figure.axes, [*titles.values()] * 2, strict=False):
        axes.axhline(result.target, color="#333333", linewidth=0.8, linestyle=":")
        axes.set_ylim(*_limits(result))
    for axes, result in zip(figure.axes, titles.values(), strict=False):
        last = result.steps // result.outcomes[0].every
        axes.set_xticks([0, last / 2, last], ["0", f"{result.steps / 2:g}", f"{result.steps} steps"])
    for axes, result in zip(figure.axes[len(titles) :], titles.values(), strict=False):
        factors = max((o.factors for o in result.outcomes), key=len)
        places = sorted({0, len(factors) // 2, len(factors) - 1})
        axes.set_xticks(
            places, [f"rate x {factors[i]:.3g}" if i == places[-1] else f"{factors[i]:.2g}" for i in places]
        )
    return figure


def saved(figure: Any, path: str) -> None:
    """Writes a PNG of 256 colors, which is a third as large as one of all; bands have many shades, but no more."""
    from PIL import Image  # comes with matplotlib

    full = io.BytesIO()
    figure.savefig(full, format="png")
    Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)


def _by_rate(outcome: Any) -> np.ndarray:
    """(seeds, factors); infinite losses are gaps."""
    return np.where(np.isfinite(outcome.best_losses), outcome.best_losses, np.nan).T


def _limits(result: TaskResult) -> tuple[float, float]:
    start = float(np.median(result.outcomes[0].curves[..., 0]))
    curves = np.concatenate([o.curves[o.best].ravel() for o in result.outcomes])
    lowest = float(np.min(curves[np.isfinite(curves)], initial=result.target))
    if _spans_decades(result):
        return lowest / 1.5, start * 2
    room = 0.05 * (start - lowest)
    return lowest - room, start + room


def _spans_decades(result: TaskResult) -> bool:
    """Whether the losses are positive and so far apart that only their logarithms can be seen."""
    curves = np.concatenate([o.curves[o.best].ravel() for o in result.outcomes])
    curves = curves[np.isfinite(curves)]
    return bool(curves.size and curves.min() > 0 and np.median(result.outcomes[0].curves[..., 0]) > 30 * curves.min())
