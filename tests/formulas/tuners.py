# SPDX-License-Identifier: Apache-2.0
"""Formulas of AdamG, ScheduleFree+ and of tuners around other optimizers: Mechanic and TRAC."""

import math

import numpy as np

import gradtx as gt
from formulas.first_rules import as_float
from formulas.parameter_free import at, halving, joined, value_of
from formulas.scaled import turned, valued
from support import problems
from support.formulas import case


def falling(count):
    return 0.3 * halving(count)


def fading(count):
    return 0.1 * 0.9 ** as_float(count)


def adamg(rate=1.0, b1=0.95, b2=0.999, b3=0.95, eps=1e-8, factor=0.2, power=0.24, decay=0.0):
    """Pang et al. 2024, AdamG: s(x) = factor x^power of the second moment makes the step size r."""

    def step(p, g, s, t):
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        s["r"] = b3 * s.get("r", 0.0) + (1 - b3) * factor * s["v"] ** power
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * s["r"] * g
        u = s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)
        return p - min(at(rate, t), 1 / math.sqrt(t)) * (u + decay * p)

    return step


def schedule_free_plus(
    rate=1.0,
    warmup=1,
    b1=0.9,
    momentum=0.9,
    b2=0.95,
    eps=1e-8,
    decay=0.0,
    power=2.0,
    polyak=0.0,
    average_from=0,
    b1_steps=math.inf,
    b1_max=0.965,
    step_power=0.0,
    shown="y",
):
    """Defazio 2026, ScheduleFree+; the loss is `value_of`. `shown` is where gradients are taken."""

    @joined
    def step(p, g, s, t):
        if t == 1:
            s.update(x=p, y=p, z=p, m=0.0, v=0.0, n=0.0, largest=0.0, total=0.0)
        part = min((t - 1) / b1_steps, 1.0)
        b = 1 - math.exp((1 - part) * math.log(1 - b1) + part * math.log(1 - b1_max))
        gamma = at(rate, t) * min(1.0, t / warmup)
        s["n"] = polyak * s["n"] + (1 - polyak) * np.sum(np.abs(g)) * math.sqrt(math.pi / 2)
        above = max(0.0, value_of(p) + b * np.sum(g * (s["z"] - s["x"])))
        alpha = gamma * above / (s["n"] / (1 - polyak**t))
        s["m"] = momentum * s["m"] + (1 - momentum) * g
        s["v"] = b2 * s["v"] + (1 - b2) * g**2
        u = s["m"] / (1 - momentum**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)
        s["z"] = s["z"] - alpha**2 * decay * s["y"] - alpha * u
        s["largest"] = max(s["largest"], gamma)
        weight = t**step_power * s["largest"] ** power
        s["total"] += weight
        c = 1.0 if t <= average_from else weight / s["total"]
        s["x"] = (1 - c) * s["x"] + c * s["z"]
        s["y"] = b * s["x"] + (1 - b) * s["z"]
        return s[shown]

    return step


def mechanic(rate, decay=1e-2, eps=1e-8, s_init=1e-6, n=6):
    """Cutkosky et al. 2023, algorithm 1, as in the authors' code, around gradient descent.

    The displacement is kept here, where the rule has it from (p - first) / (S + eps).
    """
    b = np.asarray([1 - 10.0**-k for k in range(1, n + 1)])

    @joined
    def step(p, g, s, t):
        if t == 1:
            s.update(first=p, r=0 * b, m=0 * b, v=0 * b, s=s_init + 0 * b)
        total = np.sum(s["s"])
        delta = (p - s["first"]) / (total + eps)
        h = np.sum(delta * (g + decay * total * np.linalg.norm(g) / (np.linalg.norm(p) + eps) * p))
        clipped = np.sign(h) * np.minimum(np.abs(h), s["m"])
        s["m"] = np.maximum(b * s["m"], np.abs(h) + eps)
        s["v"] = b**2 * s["v"] + h**2
        s["r"] = b * s["r"] - s["s"] * clipped
        s["s"] = (s_init * s["m"] / n + np.maximum(s["r"], 0)) / (np.sqrt(s["v"]) + eps)
        return s["first"] + np.sum(s["s"]) * (delta - at(rate, t) * g)

    return step


def erfi(x):
    """By its Taylor series, whose terms have one sign."""
    return 2 / math.sqrt(math.pi) * math.fsum(x ** (2 * n + 1) / (math.factorial(n) * (2 * n + 1)) for n in range(150))


def trac(rate, betas=(0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999), eps=1e-8, nonnegative=False):
    """Muppidi et al. 2024, algorithms 1 and 2, around gradient descent."""

    @joined
    def step(p, g, s, t):
        if t == 1:
            s.update(first=p, base=p, v=[0.0] * len(betas), sigma=[0.0] * len(betas))
        h = np.sum(g * (s["base"] - s["first"]))
        s["base"] = s["base"] - at(rate, t) * g
        s["v"] = [b**2 * v + h**2 for b, v in zip(betas, s["v"], strict=True)]
        s["sigma"] = [b * x - h for b, x in zip(betas, s["sigma"], strict=True)]
        pairs = zip(s["sigma"], s["v"], strict=True)
        scale = sum(eps / erfi(1 / math.sqrt(2)) * erfi(x / math.sqrt(2 * v)) for x, v in pairs if v > 0)
        scale = max(scale, 0) if nonnegative else scale
        return s["first"] + (s["base"] - s["first"]) * scale

    return step


def turning_around(params, t):
    """Gradients of a problem, and their opposites."""
    return {n: g * (1 if t % 10 < 5 else -1) for n, g in problems.gradient(params).items()}


CASES = [
    case(lambda: gt.adamg(eps=0.01), adamg(eps=0.01)),
    case(
        lambda: gt.adamg(fading, 0.8, 0.9, 0.7, 0.01, 0.5, 0.4, weight_decay=0.1),
        adamg(fading, 0.8, 0.9, 0.7, 0.01, 0.5, 0.4, 0.1),
        "adamg, scheduled",
    ),
    case(lambda: turned(gt.adamg(0.3, eps=0.1)), adamg(0.3, eps=0.1)),
    case(lambda: valued(gt.schedule_free_plus(0.5, eps=0.1), 0.0), schedule_free_plus(0.5, eps=0.1)),
    case(
        lambda: valued(
            gt.schedule_free_plus(
                falling,
                7,
                0.8,
                0.7,
                0.9,
                0.1,
                3.0,
                1.5,
                polyak_decay=0.6,
                average_from=9,
                b1_steps=30,
                b1_max=0.95,
                weight_step_power=0.5,
            ),
            0.0,
        ),
        schedule_free_plus(falling, 7, 0.8, 0.7, 0.9, 0.1, 3.0, 1.5, 0.6, 9, 30, 0.95, 0.5),
        "schedule_free_plus, scheduled",
    ),
    case(lambda: valued(turned(gt.schedule_free_plus(0.5, eps=0.1)), 0.0), schedule_free_plus(0.5, eps=0.1)),
    # Both tuners take the factor to where gradient descent begins to oscillate, and there any rounding grows. So rates
    # fade here, or the factors start so small that it takes them 100 steps.
    case(lambda: gt.mechanize(gt.sgd(0.01), 2.0, s_init=1e-8), mechanic(0.01, 2.0, s_init=1e-8)),
    case(
        lambda: gt.mechanize(gt.sgd(fading), 1.0, 1.0, 0.1, 3),
        mechanic(fading, 1.0, 1.0, 0.1, 3),
        "mechanize, scheduled",
    ),
    case(
        lambda: gt.mechanize(gt.sgd(fading), 4.0, 5.0, 1.0, 3),
        mechanic(fading, 4.0, 5.0, 1.0, 3),
        "mechanize, held back",
    ),
    case(
        lambda: turned(gt.mechanize(gt.sgd(fading), 1.0, 1.0, 0.1, 3)),
        mechanic(fading, 1.0, 1.0, 0.1, 3),
        "mechanize, complex",
    ),
    case(lambda: gt.trac(gt.sgd(0.1), eps=1e-14), trac(0.1, eps=1e-14)),
    case(lambda: gt.trac(gt.sgd(0.1), (0.5, 0.9), 1e-5), trac(0.1, (0.5, 0.9), 1e-5)),
    case(
        lambda: gt.trac(gt.sgd(fading), (0.3, 0.7, 1.0), 0.01), trac(fading, (0.3, 0.7, 1.0), 0.01), "trac, scheduled"
    ),
    *[
        case(
            lambda nonnegative=nonnegative: gt.trac(gt.sgd(0.1), (0.5, 0.9), 1e-3, nonnegative=nonnegative),
            trac(0.1, (0.5, 0.9), 1e-3, nonnegative),
            gradient=turning_around,
        )
        for nonnegative in (False, True)
    ],
    case(lambda: turned(gt.trac(gt.sgd(0.1), (0.5, 0.9), 1e-5)), trac(0.1, (0.5, 0.9), 1e-5)),
]
