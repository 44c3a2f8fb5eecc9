# SPDX-License-Identifier: Apache-2.0
"""A loss with arguments, its formula in NumPy float64, and what may be masked.

The formulas are written for ordinary numbers: no masks, no care at extremes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import gradtx.losses

RNG = np.random.default_rng(0)


class Masked(NamedTuple):
    """A mask of the last entries along an axis: deleting them must give the same."""

    axis: int  # the axis along which entries are masked
    shape: tuple[int, ...]  # that of `where`: 1 where it is repeated
    arrays: tuple[str, ...]  # the arguments that have the axis
    out: int | None = None  # where the axis is in the result: there, masked entries are 0
    count: int = 1
    name: str = "where"


class Case(NamedTuple):
    name: str
    arrays: dict[str, np.ndarray]
    formula: Callable[..., Any]
    kwargs: dict[str, Any]
    masks: tuple[Masked, ...]

    def __str__(self) -> str:
        return ", ".join([self.name, *(f"{k}={v}" for k, v in self.kwargs.items() if not isinstance(v, np.ndarray))])

    def call(self, *arrays: Any, **extra: Any) -> Any:
        found = getattr(gradtx.losses, self.name)(**dict(zip(self.arrays, arrays, strict=True)), **self.kwargs, **extra)
        return found[0] if self.name == "ctc_loss_with_forward_probs" else found

    def expected(self, *arrays: Any) -> np.ndarray:
        return np.asarray(self.formula(*arrays), np.float64)

    @property
    def differentiable(self) -> list[int]:
        return [i for i, x in enumerate(self.arrays.values()) if np.issubdtype(x.dtype, np.floating)]


CASES: list[Case] = []


def case(name: str, arrays: dict, formula: Callable, *masks: Masked, **kwargs: Any) -> None:
    CASES.append(Case(name, {n: np.asarray(x) for n, x in arrays.items()}, formula, kwargs, masks))


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def fractions(*shape: int) -> np.ndarray:
    return RNG.uniform(0.05, 0.95, size=shape)


def softmax(x, axis=-1):
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_hot(labels, n):
    return np.eye(n)[labels]


def chosen(x, labels):
    return np.take_along_axis(x, labels[..., None], -1)[..., 0]
