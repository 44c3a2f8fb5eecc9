# SPDX-License-Identifier: Apache-2.0
"""What a race measured, and what follows from it."""

import dataclasses
import functools
from typing import Any

import numpy as np

from gradtx.race._statistics import Basin, basin, interval


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One contender on one task.

    Attributes:
      contender: its name.
      factors: the multiples of its learning rate that ran; only 1 if it has none.
      rates: the rates, as text.
      curves: losses of shape (factors, seeds, 1 + measurements), that of the initial parameters first.
      every: steps between measurements.
      target: the loss that is to be reached.
    """

    contender: str
    factors: np.ndarray
    rates: tuple[str, ...]
    curves: np.ndarray
    every: int
    target: float

    @functools.cached_property
    def best_losses(self) -> np.ndarray:
        """The lowest loss of each run, (factors, seeds); infinite for a run that was not finite at some time."""
        return np.where(np.isfinite(self.curves).all(-1), np.min(self.curves, -1), np.inf)

    @functools.cached_property
    def steps(self) -> np.ndarray:
        """The steps after which each run is first measured at its target, (factors, seeds); infinite if it never is."""
        there = self.curves <= self.target
        return np.where(there.any(-1), there.argmax(-1) * float(self.every), np.inf)

    @property
    def best(self) -> int:
        """The factor with the lowest best loss, in the mean over the seeds."""
        return int(np.argmin(self.best_losses.mean(1)))

    @property
    def fastest(self) -> int:
        """The factor with the least median of the steps to the target; then the one that reaches it on most seeds, and
        then the one with the lowest best loss."""
        keys = zip(np.median(self.steps, 1), np.isinf(self.steps).sum(1), self.best_losses.mean(1), strict=True)
        ranked = [tuple(map(float, key)) for key in keys]
        return ranked.index(min(ranked))

    @property
    def basin(self) -> Basin | None:
        """The rates around the best one that reach the target on half of the seeds."""
        return basin(self.factors, np.median(self.best_losses, 1), self.target)

    @property
    def at_edge(self) -> bool:
        """Whether a rate beyond the grid may be better still."""
        ends = (0, len(self.factors) - 1)
        return len(self.factors) > 1 and (self.best in ends or self.fastest in ends)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, as dictionaries, lists, strings and numbers; None for what is infinite."""
        found, steps, losses = self.basin, self.steps[self.fastest], self.best_losses[self.best]
        return {
            "contender": self.contender,
            "steps": {"rate": self.rates[self.fastest], "seeds": plain(steps), "median": plain(np.median(steps))},
            "best_loss": {
                "rate": self.rates[self.best],
                "seeds": plain(losses),
                "mean": plain(losses.mean()),
                "interval": plain(interval(losses)),
            },
            "basin": None if found is None else {**found._asdict(), "width": found.width},
            "at_edge": self.at_edge,
            "rates": list(self.rates),
            "factors": plain(self.factors),
            "best_losses": plain(self.best_losses),
            "curves_at_best_rate": plain(self.curves[self.best]),
        }


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """All contenders on one task.

    Attributes:
      task: its name.
      about: what it is.
      steps: of a run.
      target: the loss that is to be reached.
      target_of: where the target is from.
      outcomes: in the order of the contenders.
    """

    task: str
    about: str
    steps: int
    target: float
    target_of: str
    outcomes: tuple[Outcome, ...]


def plain(x: Any) -> Any:
    """Numbers in lists, with six digits; None for those that JSON has not."""
    values = np.asarray(x, float)
    if values.ndim:
        return [plain(y) for y in values]
    return float(f"{values:.6g}") if np.isfinite(values) else None
