# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for loggers, with the calls of theirs that docs/logging.md makes, which keep what they are given.

The tests install no wandb, trackio, tensorboardX or tqdm: they are large or talk to the network. The page was run with
the real ones (wandb offline) when it was written.
"""

import sys
import types
from collections import defaultdict
from typing import Any

import pytest

Rows = dict[int, dict[str, float]]


class Logged:
    """By the name of the logger: the numbers of each step, and what else it was told at the start."""

    def __init__(self) -> None:
        self.rows: dict[str, Rows] = defaultdict(dict)
        self.told: dict[str, Any] = {}

    def row(self, logger: str, numbers: dict[str, float], step: int) -> None:
        assert type(step) is int and step > max(self.rows[logger], default=-1), "steps only go up"
        assert all(type(x) is float for x in numbers.values()), "numbers of Python, which every logger takes"
        self.rows[logger][step] = dict(numbers)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Logged:
    """Modules of these names, for the test of the `monkeypatch`."""
    logged = Logged()
    modules = {"wandb": _Wandb(logged), "trackio": _Trackio(logged)}
    modules["tensorboardX"] = types.SimpleNamespace(SummaryWriter=lambda logdir: _SummaryWriter(logged))
    modules["tqdm"] = types.SimpleNamespace(tqdm=lambda total: _Bar(logged, total))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return logged


class _Context:
    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _Wandb:
    def __init__(self, logged: Logged):
        self.logged = logged

    def init(self, *, project: str, mode: str, config: dict) -> "_Run":
        assert mode == "offline"
        self.logged.told["wandb"] = config
        return _Run(self.logged)


class _Run(_Context):
    def __init__(self, logged: Logged):
        self.logged = logged

    def log(self, data: dict, step: int | None = None) -> None:
        assert step is not None
        self.logged.row("wandb", data, step)


class _Trackio:
    def __init__(self, logged: Logged):
        self.logged = logged

    def init(self, project: str, *, config: dict) -> None:
        self.logged.told["trackio"] = config

    def log(self, metrics: dict, step: int | None = None) -> None:
        assert step is not None
        self.logged.row("trackio", metrics, step)

    def finish(self) -> None:
        self.logged.told["trackio finished"] = True


class _SummaryWriter(_Context):
    def __init__(self, logged: Logged):
        self.logged, self.tags = logged, {}

    def add_text(self, tag: str, text: str) -> None:
        self.logged.told["tensorboardX"] = text

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.tags.setdefault(step, {})[tag] = value

    def __exit__(self, *error: object) -> None:
        for step, numbers in self.tags.items():
            self.logged.row("tensorboardX", numbers, step)


class _Bar(_Context):
    def __init__(self, logged: Logged, total: int):
        self.logged, self.total, self.n = logged, total, 0

    def set_postfix(self, **numbers: float) -> None:
        self.shown = numbers

    def update(self, n: int) -> None:
        self.n += n

    def __exit__(self, *error: object) -> None:
        self.logged.told["tqdm"] = self.n, self.total, self.shown
