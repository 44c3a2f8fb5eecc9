# SPDX-License-Identifier: Apache-2.0
"""Twenty classic test problems of unconstrained minimization, with their usual starts.

From Moré, Garbow and Hillstrom 1981, Testing unconstrained optimization software (the numbers of the comments), where
each is a sum of squares. `numpy` and `jax.numpy` both can stand for `np`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy


class Problem(NamedTuple):
    name: str
    residuals: Callable[[Any, Any], Any]  # (np, x) -> a list of arrays and numbers
    start: numpy.ndarray

    def value(self, np: Any, x: Any) -> Any:
        return sum(np.sum(np.square(r)) for r in self.residuals(np, x))


def rosenbrock(np, x):  # 1
    return [10 * (x[1] - x[0] ** 2), 1 - x[0]]


def freudenstein_roth(np, x):  # 2
    return [-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]]


def powell_badly_scaled(np, x):  # 3
    return [1e4 * x[0] * x[1] - 1, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001]


def brown_badly_scaled(np, x):  # 4
    return [x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2]


def beale(np, x):  # 5
    return [y - x[0] * (1 - x[1] ** (i + 1)) for i, y in enumerate((1.5, 2.25, 2.625))]


def jennrich_sampson(np, x):  # 6
    i = numpy.arange(1.0, 11)
    return [2 + 2 * i - (np.exp(i * x[0]) + np.exp(i * x[1]))]


def helical_valley(np, x):  # 7
    turn = np.arctan2(x[1], x[0]) / (2 * numpy.pi)
    turn = np.where((x[0] < 0) & (x[1] < 0), turn + 1, turn)  # the arctangent of the paper, cut at x0 = 0, x1 < 0
    return [10 * (x[2] - 10 * turn), 10 * (np.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]]


BARD = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]


def bard(np, x):  # 8
    u = numpy.arange(1.0, 16)
    v = 16 - u
    return [numpy.array(BARD) - (x[0] + u / (v * x[1] + numpy.minimum(u, v) * x[2]))]


GAUSSIAN = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989]


def gaussian(np, x):  # 9
    t = (8 - numpy.arange(1.0, 16)) / 2
    return [x[0] * np.exp(-x[1] * (t - x[2]) ** 2 / 2) - numpy.array(GAUSSIAN + GAUSSIAN[-2::-1])]


def box_three_dimensional(np, x):  # 12
    t = 0.1 * numpy.arange(1.0, 11)
    return [np.exp(-t * x[0]) - np.exp(-t * x[1]) - x[2] * (numpy.exp(-t) - numpy.exp(-10 * t))]


def powell_singular(np, x):  # 13
    last = [5**0.5 * (x[2] - x[3]), (x[1] - 2 * x[2]) ** 2, 10**0.5 * (x[0] - x[3]) ** 2]
    return [x[0] + 10 * x[1], *last]


def wood(np, x):  # 14
    first = [10 * (x[1] - x[0] ** 2), 1 - x[0], 90**0.5 * (x[3] - x[2] ** 2), 1 - x[2]]
    return [*first, 10**0.5 * (x[1] + x[3] - 2), (x[1] - x[3]) / 10**0.5]


KOWALIK_Y = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
KOWALIK_U = [4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]


def kowalik_osborne(np, x):  # 15
    u = numpy.array(KOWALIK_U)
    return [numpy.array(KOWALIK_Y) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])]


def brown_dennis(np, x):  # 16
    t = numpy.arange(1.0, 21) / 5
    return [(x[0] + t * x[1] - numpy.exp(t)) ** 2 + (x[2] + x[3] * numpy.sin(t) - numpy.cos(t)) ** 2]


def biggs_exp6(np, x):  # 18
    t = 0.1 * numpy.arange(1.0, 14)
    y = numpy.exp(-t) - 5 * numpy.exp(-10 * t) + 3 * numpy.exp(-4 * t)
    return [x[2] * np.exp(-t * x[0]) - x[3] * np.exp(-t * x[1]) + x[5] * np.exp(-t * x[4]) - y]


def extended_rosenbrock(np, x):  # 21
    return [10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]]


def penalty(np, x):  # 23
    return [1e-5**0.5 * (x - 1), np.sum(x**2) - 0.25]


def variably_dimensioned(np, x):  # 25
    weighted = np.sum(numpy.arange(1.0, len(x) + 1) * (x - 1))
    return [x - 1, weighted, weighted**2]


def trigonometric(np, x):  # 26
    n, i = len(x), numpy.arange(1.0, len(x) + 1)
    return [n - np.sum(np.cos(x)) + i * (1 - np.cos(x)) - np.sin(x)]


def broyden_tridiagonal(np, x):  # 30
    zero = numpy.zeros(1)
    before, after = np.concatenate([zero, x[:-1]]), np.concatenate([x[1:], zero])
    return [(3 - 2 * x) * x - before - 2 * after + 1]


def problem(residuals: Callable, *start: float) -> Problem:
    return Problem(residuals.__name__, residuals, numpy.array(start))


PROBLEMS = [
    problem(rosenbrock, -1.2, 1),
    problem(freudenstein_roth, 0.5, -2),
    problem(powell_badly_scaled, 0, 1),
    problem(brown_badly_scaled, 1, 1),
    problem(beale, 1, 1),
    problem(jennrich_sampson, 0.3, 0.4),
    problem(helical_valley, -1, 0, 0),
    problem(bard, 1, 1, 1),
    problem(gaussian, 0.4, 1, 0),
    problem(box_three_dimensional, 0, 10, 20),
    problem(powell_singular, 3, -1, 0, 1),
    problem(wood, -3, -1, -3, -1),
    problem(kowalik_osborne, 0.25, 0.39, 0.415, 0.39),
    problem(brown_dennis, 25, 5, -5, -1),
    problem(biggs_exp6, 1, 2, 1, 1, 1, 1),
    problem(extended_rosenbrock, *[-1.2, 1] * 5),
    problem(penalty, *range(1, 11)),
    problem(variably_dimensioned, *(1 - numpy.arange(1, 11) / 10)),
    problem(trigonometric, *[0.1] * 10),
    problem(broyden_tridiagonal, *[-1] * 10),
]
