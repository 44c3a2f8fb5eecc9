# SPDX-License-Identifier: Apache-2.0
"""Every schedule and every operation on schedules, with its formula in NumPy float64."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradtx.schedules._schedule import Schedule
from support.public import NAMES


class Case(NamedTuple):
    call: str
    formula: Callable[[float], float]
    edges: tuple[int, ...] = ()  # the steps where a formula has a corner or a jump

    @property
    def schedule(self) -> Schedule:
        return eval(self.call, dict(NAMES))

    @property
    def steps(self) -> list[int]:
        around = {e + d for e in self.edges for d in (-1, 0, 1)}
        return sorted({0, 1, 5, 13, 1000, 10**6} | {t for t in around if t >= 0})

    @property
    def smooth_steps(self) -> list[float]:
        return [t + 0.37 for t in (0, 5, 13, 40) if not set(self.edges) & {t, t + 1}]


def half_cosine(x: float) -> float:
    return (1 + math.cos(math.pi * min(x, 1))) / 2


def ramp(t: float, length: float, low: float, high: float) -> float:
    return low + (high - low) * min(max(t / length, 0), 1)


def cycled(t: float, period: int) -> float:
    horizon = period * math.ceil(t / period) if t > 0 else period
    return 0.1 + 0.9 * (1 - t / horizon) ** 2


def exponential(t: float, begin: float = 0) -> float:
    return 0.6 * 0.8 ** (max(t - begin, 0) / 7)


def warmup_cosine(t: float, low: float, peak: float, warmup: int, total: int, end: float, exponent: float) -> float:
    if t < warmup:
        return ramp(t, warmup, low, peak)
    return end + (peak - end) * half_cosine((t - warmup) / (total - warmup)) ** exponent


def restarts(t: float) -> float:
    if t < 9:
        return warmup_cosine(t, 0.0, 1.0, 3, 9, 0.1, 1.0)
    return warmup_cosine(t - 9, 0.1, 0.5, 2, 12, 0.0, 1.0)


def one_cycle(t: float) -> float:
    if t < 6:
        return 0.02 + 0.48 * (1 - half_cosine(t / 6))
    return 2e-6 + (0.5 - 2e-6) * half_cosine((t - 6) / 15)


CASES = [
    Case("constant_schedule(0.3)", lambda t: 0.3),
    Case("piecewise_values_schedule([3, 9], [0.5, 0.2, 0.7])", lambda t: [0.5, 0.2, 0.7][(t >= 3) + (t >= 9)], (3, 9)),
    Case(
        "piecewise_constant_schedule(0.8, boundaries_and_scales={3: 0.5, 9: 0.1})",
        lambda t: [0.8, 0.4, 0.04][(t >= 3) + (t >= 9)],
        (3, 9),
    ),
    Case("inverse_time_decay(0.6, 7, 0.5)", lambda t: 0.6 / (1 + 0.5 * t / 7)),
    Case("inverse_time_decay(0.6, 7, 0.5, staircase=True)", lambda t: 0.6 / (1 + 0.5 * (t // 7)), (7, 14)),
    Case("step_decay_schedule(0.6, 7)", lambda t: 0.6 / math.floor(t / 7 + 1), (7, 14, 700)),
    Case("exponential_decay(0.6, 7, 0.8)", exponential),
    Case(
        "exponential_decay(0.6, 7, 0.8, transition_begin=4, staircase=True)",
        lambda t: 0.6 * 0.8 ** (max(t - 4, 0) // 7),
        (4, 11, 18, 39, 46),
    ),
    Case(
        "exponential_decay(0.6, 7, 0.8, transition_begin=4, end_value=0.3)", lambda t: max(exponential(t, 4), 0.3), (4,)
    ),
    Case("exponential_decay(0.6, 7, 1.5, end_value=0.9)", lambda t: 0.6 * min(1.5 ** min(t / 7, 10), 1.5), (7,)),
    Case("natural_exponential_decay(0.6, 7, 0.5)", lambda t: 0.6 * math.exp(-0.5 * t / 7)),
    Case("natural_exponential_decay(0.6, 7, 0.5, staircase=True)", lambda t: 0.6 * math.exp(-0.5 * (t // 7)), (7, 14)),
    Case("linear_schedule(1.0, 0.1, 10)", lambda t: ramp(t, 10, 1.0, 0.1), (10,)),
    Case(
        "polynomial_schedule(1.0, 0.1, 0.5, 10, transition_begin=3)",
        lambda t: 0.1 + 0.9 * ramp(t - 3, 10, 1, 0) ** 0.5,
        (3, 13),
    ),
    Case("polynomial_schedule(1.0, 0.1, 2.0, 10, cycle=True)", lambda t: cycled(t, 10), (10, 20)),
    Case(
        "cosine_decay_schedule(0.7, 9, alpha=0.2, exponent=0.3)",
        lambda t: 0.14 + 0.56 * half_cosine(t / 9) ** 0.3,
        (9,),
    ),
    Case("warmup_constant_schedule(0.1, 1.0, 10)", lambda t: ramp(t, 10, 0.1, 1.0), (10,)),
    Case(
        "warmup_cosine_decay_schedule(0.1, 1.0, 4, 20, end_value=0.2, exponent=1.5)",
        lambda t: warmup_cosine(t, 0.1, 1.0, 4, 20, 0.2, 1.5),
        (4, 20),
    ),
    Case("warmup_cosine_decay_schedule(0.1, 1.0, 0, 20)", lambda t: half_cosine(t / 20), (20,)),
    Case(
        "warmup_exponential_decay_schedule(0.0, 0.6, 4, 7, 0.8, transition_begin=3, end_value=0.1)",
        lambda t: ramp(t, 4, 0.0, 0.6) if t < 4 else max(exponential(t, 7), 0.1),
        (4, 7),
    ),
    Case(
        "join_schedules((linear_schedule(0.0, 1.0, 5), constant_schedule(2), exponential_decay(0.6, 7, 0.8)), (5, 8))",
        lambda t: t / 5 if t < 5 else 2.0 if t < 8 else exponential(t, 8),
        (5, 8),
    ),
    Case(
        "sgdr_schedule([{'decay_steps': 9, 'end_value': 0.1, 'init_value': 0.0, 'peak_value': 1.0, 'warmup_steps': 3}, "
        "{'decay_steps': 12, 'init_value': 0.1, 'peak_value': 0.5, 'warmup_steps': 2}])",
        restarts,
        (3, 9, 11, 21),
    ),
    Case(
        "piecewise_interpolate_schedule('linear', 1.0, boundaries_and_scales={4: 0.5, 10: 0.1})",
        lambda t: np.interp(t, [0, 4, 10], [1, 0.5, 0.05]),
        (4, 10),
    ),
    Case(
        "piecewise_interpolate_schedule('cosine', 1.0, boundaries_and_scales={4: 0.5})",
        lambda t: 0.5 + 0.5 * half_cosine(t / 4),
        (4,),
    ),
    Case(
        "linear_onecycle_schedule(21, 0.5)",
        lambda t: np.interp(t, [0, 6, 17, 21], [0.02, 0.5, 0.02, 2e-6]),
        (6, 17, 21),
    ),
    Case("cosine_onecycle_schedule(21, 0.5)", one_cycle, (6, 21)),
]


def decayed(weight: Callable[[float], float], steps: float, end: float) -> Callable[[float], float]:
    """1 to end along a curve of the part that is done."""
    return lambda t: end + (1 - end) * weight(min(max(t / steps, 0), 1))


def stable(t: float, weight: Callable[[float], float]) -> float:
    return ramp(t, 4, 0.1, 1.0) if t < 10 else decayed(weight, 10, 0.2)(t - 10)


def triangle(t: float, up: int, down: int) -> tuple[float, int]:
    """The height and the number of the cycle."""
    cycle, own = divmod(t, up + down)
    return own / up if own < up else 1 - (own - up) / down, int(cycle)


def repeated(t: float, length: float, growth: float, times: float = math.inf) -> tuple[float, int]:
    """The step within the cycle, as if it had not grown, and its number."""
    cycle = 0
    while t >= length * growth**cycle and cycle + 1 < times:
        t, cycle = t - length * growth**cycle, cycle + 1
    return min(t / growth**cycle, length), cycle


def hump(t: float) -> float:
    return t / 3 if t < 3 else half_cosine((t - 3) / 6)


def hump_again(t: float) -> float:
    own, cycle = repeated(t, 9, 2, 3)
    return hump(own) * 0.5**cycle


def chebyshev(t: float) -> float:
    i = [0, 7, 3, 4, 1, 6, 2, 5][min(int(t), 7)]
    return 2 / (1.05 - 0.95 * math.cos(math.pi * (i + 0.5) / 8))


CASES += [
    Case("warmup(10, start=0.1)", lambda t: ramp(t, 10, 0.1, 1.0), (10,)),
    Case("constant()", lambda t: 1.0),
    Case("constant(steps=7)", lambda t: 1.0),
    Case("linear(10, end=0.1)", lambda t: ramp(t, 10, 1.0, 0.1), (10,)),
    Case("cosine(9, end=0.1)", decayed(half_cosine, 9, 0.1), (9,)),
    Case("one_minus_sqrt(9, end=0.2)", decayed(lambda p: 1 - p**0.5, 9, 0.2), (9,)),
    Case("one_minus_square(9, end=0.2)", decayed(lambda p: 1 - p**2, 9, 0.2), (9,)),
    Case("rex(9, end=0.1)", decayed(lambda p: (1 - p) / (1 - p / 2), 9, 0.1), (9,)),
    Case("inverse_sqrt(7, shift=3)", lambda t: 1 / math.sqrt(1 + (t + 3) / 7)),
    *(
        Case(
            f"wsd_schedule(0.1, 1.0, 4, 6, 10, end_value=0.2{shape})",
            lambda t, weight=weight: stable(t, weight),
            (4, 10, 20),
        )
        for shape, weight in {
            "": lambda p: 1 - p,
            ", shape='cosine'": half_cosine,
            ", shape='1-sqrt'": lambda p: 1 - math.sqrt(p),
            ", shape='1-square'": lambda p: 1 - p**2,
            ", shape='rex'": lambda p: (1 - p) / (1 - p / 2),
        }.items()
    ),
    Case("cyclic_schedule(0.1, 1.0, 5)", lambda t: 0.1 + 0.9 * triangle(t, 5, 5)[0], (5, 10, 15, 20, 1000)),
    Case(
        "cyclic_schedule(0.1, 1.0, 5, down_steps=8, mode='triangular2')",
        lambda t: 0.1 + 0.9 * triangle(t, 5, 8)[0] * 0.5 ** triangle(t, 5, 8)[1],
        (5, 13, 18, 26, 39),
    ),
    Case(
        "cyclic_schedule(0.1, 1.0, 5, mode='exp_range', gamma=0.99)",
        lambda t: 0.1 + 0.9 * triangle(t, 5, 5)[0] * 0.99**t,
        (5, 10, 15, 20),
    ),
    Case("power_schedule(2.0, 32, 1000.0)", lambda t: min(2.0, 32 * 4.6 * (1000 * t) ** -0.51) if t else 2.0, (5,)),
    Case("chebyshev_schedule(8, 0.05, 1.0)", chebyshev, (7, 8)),
    Case(
        "multiplicative_schedule(0.8, exponential_decay(1.0, 10, 0.9), 20)",
        lambda t: 0.8 * 0.9 ** sum(i / 10 for i in range(1, min(int(t), 20) + 1)),
        (20,),
    ),
    # The algebra.
    Case(
        "warmup(4).then(cosine(9, end=0.1)).scale(0.5)",
        lambda t: 0.5 * (t / 4 if t < 4 else decayed(half_cosine, 9, 0.1)(t - 4)),
        (4, 13),
    ),
    Case(
        "inverse_sqrt(7).then(linear(5), after=6)",
        lambda t: 1 / math.sqrt(1 + t / 7) if t < 6 else ramp(t - 6, 5, 1, 0),
        (6, 11),
    ),
    Case(
        "linear_schedule(0.0, 1.0, 5).then(constant(steps=3)).then(one_minus_square(6))",
        lambda t: ramp(t, 5, 0, 1) if t < 8 else 1 - min((t - 8) / 6, 1) ** 2,
        (5, 8, 14),
    ),
    Case("cosine(12).scale(linear(9, end=0.5))", lambda t: half_cosine(t / 12) * ramp(t, 9, 1, 0.5), (9, 12)),
    Case("cosine(12).add(0.25)", lambda t: half_cosine(t / 12) + 0.25, (12,)),
    Case("cosine(12).add(linear(7))", lambda t: half_cosine(t / 12) + ramp(t, 7, 1, 0), (7, 12)),
    Case("cosine(12).subtract(linear(7))", lambda t: half_cosine(t / 12) - ramp(t, 7, 1, 0), (7, 12)),
    Case("cosine(12).divide(warmup(7, start=0.5))", lambda t: half_cosine(t / 12) / ramp(t, 7, 0.5, 1), (7, 12)),
    Case("cosine(12).clip(low=0.2, high=0.9)", lambda t: min(max(half_cosine(t / 12), 0.2), 0.9), (12,)),
    Case("linear(10).shift(3)", lambda t: ramp(t - 3, 10, 1, 0), (3, 13)),
    Case("warmup(10).shift(-1)", lambda t: min((t + 1) / 10, 1), (9,)),
    Case(
        "inverse_sqrt(7).scale(linear(10).until(30))",
        lambda t: max(min(1, (30 - t) / 10), 0) / math.sqrt(1 + t / 7),
        (20, 30),
    ),
    Case("cosine(4).stretch(3)", lambda t: half_cosine(t / 12), (12,)),
    Case("linear(3).stretch(7).staircase(7)", lambda t: ramp(t // 7, 3, 1, 0), (7, 14, 21)),
    Case("cosine(12).staircase(5)", lambda t: half_cosine(t // 5 * 5 / 12), (5, 10, 15)),
    Case("warmup(3).then(cosine(6)).repeat()", lambda t: hump(t % 9), (3, 9, 12, 18, 999)),
    Case("warmup(3).then(cosine(6)).repeat(times=3, growth=2.0, factor=0.5)", hump_again, (3, 9, 15, 27, 39, 63)),
    Case("linear(4, end=0.5).repeat(growth=1.5)", lambda t: 1 - repeated(t, 4, 1.5)[0] / 8, (4, 10, 19)),
]
