# SPDX-License-Identifier: Apache-2.0
"""The result of a race as text and as plain data."""

import dataclasses
from typing import Any

import numpy as np

from gradtx.describing._table import TableCells, as_text
from gradtx.race._outcome import Outcome, TaskResult
from gradtx.race._statistics import LEVEL, Signs, interval, sign_test

HEADER = ["contender", "steps to target", "seeds", "at rate", "best loss (95 %)", "at rate", "basin of rates"]


@dataclasses.dataclass(frozen=True)
class RaceReport:
    """What `race` returns. `print` shows a table and a sentence for each task.

    Attributes:
      contenders: their names; the others are compared with the first.
      seeds: how many runs each contender had at each rate.
      results: one for each task.
      left_out: tasks that could not run, and why.
    """

    contenders: tuple[str, ...]
    seeds: int
    results: tuple[TaskResult, ...]
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as dictionaries, lists, strings and numbers."""
        return {
            "contenders": list(self.contenders),
            "seeds": self.seeds,
            "significance": f"exact two-sided sign test over the seeds, p < {LEVEL}",
            "tasks": [
                {
                    "task": result.task,
                    "about": result.about,
                    "steps": result.steps,
                    "target": result.target,
                    "target_of": result.target_of,
                    "outcomes": [outcome.to_dict() for outcome in result.outcomes],
                    "comparisons": [_comparison(result.outcomes[0], other) for other in result.outcomes[1:]],
                }
                for result in self.results
            ],
            "left_out": dict(self.left_out),
        }

    def __str__(self) -> str:
        blocks = ["\n".join(_block(result)) for result in self.results]
        blocks += [f"{task} is left out: {why}" for task, why in self.left_out.items()]
        rule = f"Steps: median over {self.seeds} seeds (least to most), each contender at its own best rate."
        rule += f"\nSignificant: an exact two-sided sign test over the seeds gives p < {LEVEL}."
        return "\n\n".join([*blocks, rule])


def _block(result: TaskResult) -> list[str]:
    title = f"{result.task}: {result.about}" if result.about else result.task
    lines = [title, f"{result.steps} steps, target {result.target:.4g} ({result.target_of})"]
    lines += as_text(TableCells(HEADER, [_row(outcome) for outcome in result.outcomes]))
    lines += [_sentence(result.outcomes[0], other) for other in result.outcomes[1:]]
    for outcome in result.outcomes:
        if outcome.at_edge:
            lines.append(f"{outcome.contender}: the best rate is at the end of the grid: give a rate nearer to it")
    return lines


def _row(outcome: Outcome) -> list[str]:
    steps, losses = outcome.steps[outcome.fastest], outcome.best_losses[outcome.best]
    low, high = interval(losses)
    reached = np.isfinite(steps).sum()
    return [
        outcome.contender,
        f"{_number(np.median(steps))} ({_number(steps.min())} to {_number(steps.max())})" if reached else "never",
        f"{reached} of {len(steps)}",
        outcome.rates[outcome.fastest],
        f"{losses.mean():.4g} ({low:.4g} to {high:.4g})",
        outcome.rates[outcome.best],
        "none" if outcome.basin is None else str(outcome.basin),
    ]


def _number(steps: float) -> str:
    return f"{steps:g}" if np.isfinite(steps) else "never"


def _signs(first: Outcome, other: Outcome) -> Signs:
    return sign_test(other.steps[other.fastest], first.steps[first.fastest])


def _ratio(first: Outcome, other: Outcome) -> float | None:
    """The quotient of the medians of the steps; None if one of them does not reach the target."""
    medians = np.median(other.steps[other.fastest]), np.median(first.steps[first.fastest])
    return float(medians[0] / medians[1]) if np.isfinite(medians).all() and medians[1] else None


def _comparison(first: Outcome, other: Outcome) -> dict[str, Any]:
    signs = _signs(first, other)
    return {
        "contender": other.contender,
        "with": first.contender,
        "ratio_of_steps": _ratio(first, other),
        "fewer_steps_on": signs.fewer,
        "more_steps_on": signs.more,
        "p": signs.p,
        "significant": signs.p < LEVEL,
    }


def _sentence(first: Outcome, other: Outcome) -> str:
    signs, ratio, seeds = _signs(first, other), _ratio(first, other), first.steps.shape[1]
    told = "" if ratio is None else f"{ratio:.2f} of the steps of {first.contender}, "
    counted = f"fewer on {signs.fewer} and more on {signs.more} of {seeds} seeds (p = {signs.p:.2g})"
    said = f"{other.contender}: {told}{counted}: "
    if signs.p >= LEVEL:
        return f"{said}no significant difference"
    return f"{said}significantly {'faster' if signs.fewer > signs.more else 'slower'}"
