# SPDX-License-Identifier: Apache-2.0
"""The formulas of docs/coming_from.md in NumPy: by row, a function from gradients to the parameters after each step."""

import math
from collections.abc import Callable

import numpy as np

STEPS = 10
START = np.array([1.0, -2.0, 0.5])


def gradients() -> list[np.ndarray]:
    """Of some length, signs that turn, a zero."""
    rng = np.random.default_rng(5)
    found = [rng.normal(size=3) for _ in range(STEPS)]
    found[4][1] = 0.0
    return found


def iterates(step: Callable) -> np.ndarray:
    """`step(theta, g, t, memory) -> theta`, with t from 1 and a dictionary that lasts."""
    theta, memory, rows = START, {}, []
    for t, g in enumerate(gradients(), 1):
        theta = step(theta, g, t, memory)
        rows.append(theta)
    return np.stack(rows)


def velocity(rate, r, first=1.0, rest=1.0, inside=True, nesterov=False):
    """Momentum with the learning rate inside the velocity or outside of it."""

    def step(theta, g, t, m):
        weight = first if t == 1 else rest
        m["v"] = r * m.get("v", 0.0) + weight * (rate * g if inside else g)
        look = r * m["v"] + weight * (rate * g if inside else g) if nesterov else m["v"]
        return theta - (look if inside else rate * look)

    return step


def averaged(rate, b, corrected):
    def step(theta, g, t, m):
        m["v"] = b * m.get("v", 0.0) + (1 - b) * g
        return theta - rate * m["v"] / (1 - b**t if corrected else 1)

    return step


def sums(rate, eps, inside, start=0.0):
    def step(theta, g, t, m):
        m["s"] = m.get("s", start) + g**2
        root = np.sqrt(m["s"] + eps) if inside else np.sqrt(m["s"]) + eps
        return theta - rate * np.divide(g, root, out=np.zeros(3), where=root > 0)

    return step


def rms(rate, b, eps, inside=True, centered=False, momentum=0.0):
    def step(theta, g, t, m):
        m["s"] = b * m.get("s", 0.0) + (1 - b) * g**2
        m["m"] = b * m.get("m", 0.0) + (1 - b) * g
        s = m["s"] - m["m"] ** 2 if centered else m["s"]
        root = np.sqrt(s + eps) if inside else np.sqrt(s) + eps
        m["v"] = momentum * m.get("v", 0.0) + rate * g / root
        return theta - m["v"]

    return step


def adadelta(rho, eps, rate=1.0):
    def step(theta, g, t, m):
        m["s"] = rho * m.get("s", 0.0) + (1 - rho) * g**2
        u = g * np.sqrt((m.get("x", 0.0) + eps) / (m["s"] + eps))
        m["x"] = rho * m.get("x", 0.0) + (1 - rho) * u**2
        return theta - rate * u

    return step


def adam(rate, eps=1e-8, root_eps=0.0, decay=0.0, kind="adam", b1=0.9, b2=0.999):
    def step(theta, g, t, m):
        m["m"] = b1 * m.get("m", 0.0) + (1 - b1) * g
        m["v"] = b2 * m.get("v", 0.0) + (1 - b2) * g**2
        m_hat, v_hat = m["m"] / (1 - b1**t), m["v"] / (1 - b2**t)
        if kind == "amsgrad":
            v_hat = m["max"] = np.maximum(m.get("max", 0.0), v_hat)
        if kind == "adamax":
            m["u"] = np.maximum(b2 * m.get("u", 0.0), np.abs(g) + eps)
            return theta - rate * m_hat / m["u"]
        if kind == "keras":  # eps joins the root that is not yet corrected
            return theta - rate * math.sqrt(1 - b2**t) / (1 - b1**t) * m["m"] / (np.sqrt(m["v"]) + eps)
        return theta - rate * (m_hat / (np.sqrt(v_hat + root_eps) + eps) + decay * theta)

    return step


def keras_nadam(rate):
    """Dozat's momentum schedule, b1 (1 - 0.96^t / 2), in the weights and not in the average."""

    def step(theta, g, t, m):
        now, ahead = (0.9 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
        m["product"] = m.get("product", 1.0) * now
        m["m"] = 0.9 * m.get("m", 0.0) + 0.1 * g
        m["v"] = 0.999 * m.get("v", 0.0) + 0.001 * g**2
        m_hat = ahead * m["m"] / (1 - m["product"] * ahead) + (1 - now) * g / (1 - m["product"])
        return theta - rate * m_hat / (np.sqrt(m["v"] / (1 - 0.999**t)) + 1e-7)

    return step


def keras_adamax(rate):
    def step(theta, g, t, m):
        m["m"] = 0.9 * m.get("m", 0.0) + 0.1 * g
        m["u"] = np.maximum(0.999 * m.get("u", 0.0), np.abs(g))
        return theta - rate * m["m"] / ((1 - 0.9**t) * (m["u"] + 1e-7))

    return step


def keras_lion(rate):
    def step(theta, g, t, m):
        before = m.get("m", 0.0)
        m["m"] = 0.99 * before + 0.01 * g
        return theta - rate * np.sign(0.9 * before + 0.1 * g)

    return step


def keras_lamb(rate):
    def step(theta, g, t, m):
        m["m"] = 0.9 * m.get("m", 0.0) + 0.1 * g
        m["v"] = 0.999 * m.get("v", 0.0) + 0.001 * g**2
        r = m["m"] / (1 - 0.9**t) / (np.sqrt(m["v"] / (1 - 0.999**t)) + 1e-7)
        return theta - rate * r * np.linalg.norm(theta) / np.linalg.norm(r)

    return step


def keras_ftrl(rate):
    def step(theta, g, t, m):
        before = m.get("n", 0.1)
        m["n"] = before + g**2
        m["z"] = m.get("z", 0.0) + g - (np.sqrt(m["n"]) - np.sqrt(before)) / rate * theta
        return -m["z"] * rate / np.sqrt(m["n"])

    return step


def keras_adafactor(rate):
    """Of a vector, which has no factors."""

    def step(theta, g, t, m):
        b2 = 1 - t**-0.8
        m["v"] = b2 * m.get("v", 0.0) + (1 - b2) * (g**2 + 1e-30)
        u = g / np.sqrt(m["v"])
        size = max(1e-3, np.sqrt(np.mean(theta**2))) * min(rate, t**-0.5)
        return theta - size * u / max(1.0, np.sqrt(np.mean(u**2)))

    return step


def decayed(rate, decay, step):
    """Keras's weight decay: of the parameter before the step, times the rate."""
    return lambda theta, g, t, m: step(theta, g, t, m) - rate * decay * theta


def delta_bar_delta(rate, kappa, phi, beta):
    def step(theta, g, t, m):
        rates, mean = m.get("rates", np.full(3, rate)), m.get("mean", np.zeros(3))
        m["rates"] = np.where(mean * g > 0, rates + kappa, np.where(mean * g < 0, rates * (1 - phi), rates))
        m["mean"] = beta * mean + (1 - beta) * g
        return theta - m["rates"] * g

    return step


def average(b):
    """The average itself, added to the parameters as `ema` adds its updates."""

    def step(theta, g, t, m):
        m["v"] = b * m.get("v", 0.0) + (1 - b) * g
        return theta + m["v"] / (1 - b**t)

    return step


def scheduled(rate):
    return lambda theta, g, t, m: theta - rate(t - 1) * g


def clipped(f):
    return lambda theta, g, t, m: theta - 0.1 * f(g)


def accumulated(rate, k):
    def step(theta, g, t, m):
        m["sum"] = m.get("sum", 0.0) + g
        if t % k:
            return theta
        return theta - rate * m.pop("sum") / k

    return step


def by_norm(g):
    return g * min(1.0, 0.5 / np.linalg.norm(g))


def manual(t):
    return 0.1 if t < 3 else 0.05 if t < 6 else 0.01


TEXTBOOK = {
    "Gradient descent: batch, stochastic, mini-batch": scheduled(lambda t: 0.1),
    "Momentum, velocity form": velocity(0.1, 0.9),
    "Momentum, TensorFlow and PyTorch form": velocity(0.1, 0.9, inside=False),
    "with PyTorch's dampening": velocity(0.1, 0.9, rest=0.5, inside=False),
    "Momentum, averaged form": averaged(0.1, 0.9, corrected=False),
    "with bias correction": averaged(0.1, 0.9, corrected=True),
    "Nesterov, look-ahead form": velocity(0.1, 0.9, nesterov=True),
    "AdaGrad, ε in the root": sums(0.1, 1e-7, True),
    "AdaGrad, ε outside": sums(0.1, 1e-7, False),
    "RMSProp, ε in the root": rms(0.01, 0.9, 1e-6),
    "RMSProp, ε outside": rms(0.01, 0.9, 1e-6, inside=False),
    "RMSProp, centered": rms(0.01, 0.9, 1e-6, centered=True),
    "RMSProp with momentum": rms(0.01, 0.9, 1e-6, momentum=0.9),
    "AdaDelta": adadelta(0.9, 1e-6),
    "Adam": adam(0.01),
    "Adam, ε in the root": adam(0.01, 0.0, 1e-8),
    "AdaMax": adam(0.01, kind="adamax"),
    "AMSGrad": adam(0.01, kind="amsgrad"),
    "AdamW": adam(0.01, decay=0.1),
    "Delta-bar-delta (full batches only)": delta_bar_delta(0.1, 0.01, 0.1, 0.7),
    "Exponentially weighted average": average(0.9),
    "Manual decay": scheduled(manual),
    "Step decay": scheduled(lambda t: 0.1 / math.floor(t / 4 + 1)),
    "Inverse-time decay": scheduled(lambda t: 0.1 / (1 + 0.5 * t / 4)),
    "Exponential decay": scheduled(lambda t: 0.1 * 0.5 ** (t / 4)),
    "Natural exponential decay": scheduled(lambda t: 0.1 * math.exp(-0.5 * t / 4)),
    "Polynomial decay": scheduled(lambda t: 0.09 * (1 - min(t, 8) / 8) ** 2 + 0.01),
    "Linear decay, then constant": scheduled(lambda t: (1 - min(t, 8) / 8) * 0.1 + min(t, 8) / 8 * 0.01),
    "Clipping by value": clipped(lambda g: np.clip(g, -0.5, 0.5)),
    "Clipping by norm, each parameter": clipped(by_norm),
    "Clipping by the norm of all": clipped(by_norm),
    "Growing batch size": accumulated(0.1, 3),
}

KERAS = {
    "SGD(0.01)": scheduled(lambda t: 0.01),
    "SGD(0.01, momentum=0.9)": velocity(0.01, 0.9),
    "SGD(0.01, momentum=0.9, nesterov=True)": velocity(0.01, 0.9, nesterov=True),
    "RMSprop(0.001)": rms(0.001, 0.9, 1e-7),
    "RMSprop(0.001, momentum=0.9, centered=True)": rms(0.001, 0.9, 1e-7, centered=True, momentum=0.9),
    "Adagrad(0.001)": sums(0.001, 1e-7, True, start=0.1),
    "Adadelta(0.001)": adadelta(0.95, 1e-7, 0.001),
    "Adam(0.001)": adam(0.001, 1e-7, kind="keras"),
    "AdamW(0.001)": decayed(0.001, 0.004, adam(0.001, 1e-7, kind="keras")),
    "Nadam(0.001)": keras_nadam(0.001),
    "Adamax(0.001)": keras_adamax(0.001),
    "Lion(0.001)": keras_lion(0.001),
    "Lamb(0.001)": keras_lamb(0.001),
    "Ftrl(0.001)": keras_ftrl(0.001),
    "Adafactor(0.001)": keras_adafactor(0.001),
    "SGD(0.01, weight_decay=0.004)": decayed(0.01, 0.004, scheduled(lambda t: 0.01)),
    "SGD(0.01, clipnorm=0.5)": lambda theta, g, t, m: theta - 0.01 * by_norm(g),
    "SGD(0.01, global_clipnorm=0.5)": lambda theta, g, t, m: theta - 0.01 * by_norm(g),
    "SGD(0.01, clipvalue=0.5)": lambda theta, g, t, m: theta - 0.01 * np.clip(g, -0.5, 0.5),
    "SGD(0.01, use_ema=True)": scheduled(lambda t: 0.01),
    "SGD(0.01, gradient_accumulation_steps=3)": accumulated(0.01, 3),
}
