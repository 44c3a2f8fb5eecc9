# SPDX-License-Identifier: Apache-2.0
"""Formulas around the polar factor: NorMuon, AdaMuon, NAMO, PolarGrad, Aurora, Scion, Dion and Dion2.

Matrices are those of a layer, (outputs, inputs), as in the papers; parameters lie the other way round.
"""

import jax
import numpy as np

import gradtx as gt
from formulas.muon import EXPRESS, FIVE, SCALES, VIEWS, matrices, numbers, orthogonal
from support.formulas import case, whole_tree
from support.problems import SHAPES

SIMPLE = [(2.0, -1.5, 0.5)] * 12


def matrices_of(x, stack, inputs, outputs):
    """A tensor as a list of matrices (outputs, inputs), and the way back."""
    order = (*stack, *outputs, *inputs)
    turned = np.transpose(x, order)
    k, n = len(stack), len(stack) + len(outputs)
    flat = turned.reshape(-1, int(np.prod(turned.shape[k:n])), int(np.prod(turned.shape[n:])))
    return list(flat), lambda found: np.transpose(np.stack(found).reshape(turned.shape), np.argsort(order))


def on_matrices(rate, of_matrix, *, scale="none", decay=0.0, eps=1e-8, nesterov=False, adam_decay=0.0, views=None):
    """`of_matrix(g, s, t)` on each matrix, Adam on all else; `views` is name -> (stack, input and output axes)."""
    views = views or {"matrix": ((), (0,), (1,))}

    def of_adam(g, s, t, b1=0.9, b2=0.999):
        s["m"], s["v"] = b1 * s.get("m", 0) + (1 - b1) * g, b2 * s.get("v", 0) + (1 - b2) * g * g
        m = s["m"] / (1 - b1**t)
        if nesterov:
            m = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        return m / (np.sqrt(s["v"] / (1 - b2**t)) + eps)

    @whole_tree
    def step(ps, gs, s, t):
        new = {}
        for name, p in ps.items():
            mine = s.setdefault(name, {})
            if name in views:
                gradients, back = matrices_of(gs[name], *views[name])
                found = [of_matrix(g, mine.setdefault(i, {}), t) for i, g in enumerate(gradients)]
                u = back([SCALES[scale](*reversed(x.shape)) * x for x in found])
                new[name] = p - rate * (u + decay * p)
            else:
                new[name] = p - rate * (of_adam(gs[name], mine, t) + adam_decay * p)
        return new

    return step


def momentum(g, s, beta, nesterov):
    s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    return beta * s["m"] + (1 - beta) * g if nesterov else s["m"]


def polar(x, rows=FIVE, eps=1e-7, safety=1.0):
    return orthogonal(x, rows, eps=eps, safety=safety)


def normuon(beta=0.95, b2=0.95, eps=1e-10, over=1, nesterov=True, **how):
    """`over` is the axis of the mean: 1, over the inputs; None for the shorter side."""

    def step(g, s, t):
        o = polar(momentum(g, s, beta, nesterov), **how)
        axis = over if over is not None else 1 if o.shape[0] >= o.shape[1] else 0
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * np.mean(o**2, axis, keepdims=True)
        y = o / (np.sqrt(s["v"]) + eps)
        return y * np.linalg.norm(o) / (np.linalg.norm(y) + eps)

    return step


def adamuon(beta=0.95, b2=0.999, eps=1e-8, nesterov=True):
    def step(g, s, t):
        o = polar(momentum(g, s, beta, nesterov))
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * o**2
        y = o / (np.sqrt(s["v"] / (1 - b2**t)) + eps)
        return 0.2 * np.sqrt(max(o.shape)) * np.sqrt(min(o.shape)) * y / (np.linalg.norm(y) + eps)

    return step


def namo(beta=0.95, b2=0.95, eps=1e-8, nesterov=False):
    def step(g, s, t):
        x = momentum(g, s, beta, nesterov)
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * np.sum(g**2)
        return polar(x) * np.linalg.norm(x) / (np.sqrt(s["v"]) + eps)

    return step


def polargrad(beta=0.95, rows=None):
    def step(g, s, t):
        m = momentum(g, s, beta, False)
        o = polar(m, rows, eps=1e-8)
        return np.sum(m * o) * o

    return step


def aurora(beta=0.95, rounds=2, power=0.5):
    def tall(x):
        (m, n), d = x.shape, np.diag(1 / np.linalg.norm(x, axis=1))
        for _ in range(rounds):
            o = polar(d @ x, SIMPLE)
            d = d @ np.diag((n / m / np.sum(o**2, 1)) ** power)
        return o

    def step(g, s, t):
        x = momentum(g, s, beta, True)
        if x.shape[0] == x.shape[1]:
            return polar(x, SIMPLE)
        return tall(x) if x.shape[0] > x.shape[1] else tall(x.T).T

    return step


def scion(rate, norms, b1=0.9, radius=1.0, only=None, views=None, **how):
    """`norms` by name of the parameter, "rms" for all else; `only` some are constrained."""
    views = views or {"matrix": ((), (0,), (1,))}

    def direction(m, norm):
        o, i = m.shape if m.ndim == 2 else (m.size, 1)
        return {
            "spectral": lambda: np.sqrt(o / i) * polar(m, **how),
            "sign": lambda: np.sign(m) / i,
            "input": lambda: m / np.sqrt(np.mean(m**2, 0, keepdims=True)),
            "output": lambda: m / np.linalg.norm(m, axis=1, keepdims=True) / np.sqrt(i),
            "rms": lambda: m / (np.sqrt(np.mean(m**2)) + 1e-8),
        }[norm]()

    @whole_tree
    def step(ps, gs, s, t):
        new = {}
        for name, p in ps.items():
            m, norm = momentum(gs[name], s.setdefault(name, {}), b1, False), norms.get(name, "rms")
            if name in views:
                ms, back = matrices_of(m, *views[name])
                u = back([direction(x, norm) for x in ms])
            else:
                u = direction(m, norm)
            decayed = p if only is None or name in only else 0
            new[name] = p - rate * (radius * u + decayed)
        return new

    return step


def dion(rank, mu=0.95, eps=1e-8, seed=0):
    def step(g, s, t):
        outputs, inputs = g.shape
        if t == 1:
            # Random numbers are no part of a formula: they are JAX's.
            s["q"] = np.asarray(jax.random.normal(jax.random.key(seed), (inputs, min(rank, *g.shape)), np.float64))
        m = s.get("m", 0) + g
        p, _ = np.linalg.qr(m @ s["q"])
        r = m.T @ p
        s["m"] = m - (1 - mu) * p @ r.T
        s["q"] = r / (np.linalg.norm(r, axis=0) + eps)
        return p @ s["q"].T

    return step


def dion2(fraction=0.25, kept=0.95, rows=EXPRESS, eps=1e-8, safety=1.02):
    def step(g, s, t):
        m = s.get("m", 0) + g
        axis = 0 if m.shape[0] <= m.shape[1] else 1
        sizes = np.sum(np.abs(m), 1 - axis)
        chosen = np.argsort(-sizes, kind="stable")[: max(1, int(np.ceil(fraction * m.shape[axis])))]
        where = np.zeros(m.shape, bool)
        where[(chosen, slice(None)) if axis == 0 else (slice(None), chosen)] = True
        u = np.zeros_like(m)
        u[where] = polar(m[where].reshape([len(chosen) if i == axis else n for i, n in enumerate(m.shape)]),
                         rows, eps, safety).ravel()  # fmt: skip
        s["m"] = np.where(where, kept * m, m)
        return u

    return step


ROLES = (
    ("matrix", gt.Role("embedding", in_axes=1, out_axes=0)),
    ("cube", gt.Role("head", stack=1, in_axes=2, out_axes=0)),
    ("kernel", gt.Role("hidden", in_axes=(0, 1, 2), out_axes=3)),
    ("**", gt.Role("bias")),
)

CASES = [
    case(lambda: gt.normuon(0.02), on_matrices(0.02, normuon(), scale="jordan", eps=1e-10, nesterov=True)),
    case(
        lambda: gt.normuon(0.02, weight_decay=0.1, axis="longer", ns_coeffs="polar_express", scaling="spectral"),
        on_matrices(
            0.02, normuon(over=0, rows=EXPRESS, safety=1.02), scale="spectral", decay=0.1, eps=1e-10, nesterov=True
        ),
    ),
    case(lambda: gt.adamuon(0.02), on_matrices(0.02, adamuon(), decay=0.01, nesterov=True)),
    case(lambda: gt.namo(0.02), on_matrices(0.02, namo(), scale="jordan", decay=0.01)),
    case(lambda: gt.polargrad(0.02), on_matrices(0.02, polargrad())),
    case(
        lambda: gt.aurora(0.02, rounds=3, power=0.7, adam_weight_decay=0.1),
        on_matrices(0.02, aurora(rounds=3, power=0.7), scale="jordan", decay=0.025, nesterov=True, adam_decay=0.1),
    ),
    case(lambda: gt.scion(0.02), scion(0.02, {"matrix": "spectral"})),
    case(
        lambda: gt.scion(0.02, 0.8, 2.0, constrained=False, norm="sign"),
        scion(0.02, dict.fromkeys(SHAPES, "sign"), 0.8, 2.0, only=()),
    ),
    case(
        lambda: gt.with_roles(ROLES, gt.scion(0.02, ns_coeffs="polar_express", mask=matrices)),
        scion(
            0.02,
            {"matrix": "input", "cube": "sign", "kernel": "spectral"},
            only=("cube", "matrix"),
            views=VIEWS,
            rows=EXPRESS,
            safety=1.02,
        ),
        "scion by roles",
    ),
    case(
        lambda: gt.partition(
            {True: gt.scion(0.02, norm="output"), False: gt.scion(0.02, norm="rms", constrained=False)}, matrices
        ),
        scion(0.02, {"matrix": "output"}, only=("matrix",)),
        "scion of outputs",
    ),
    case(lambda: gt.dion(0.02, rank=2), on_matrices(0.02, dion(2), scale="spectral", decay=0.01)),
    case(lambda: gt.dion2(0.02), on_matrices(0.02, dion2(), scale="spectral", decay=0.01)),
    # Squares in a stack, a kernel, and a matrix with more outputs than inputs.
    *(
        case(
            lambda make=make, how=how: make(0.02, **how, weight_dimension_numbers=numbers),
            on_matrices(0.02, of_matrix, views=VIEWS, **of_all),
            f"{name} of tensors",
        )
        for name, make, how, of_matrix, of_all in (
            (
                "normuon",
                gt.normuon,
                {"nesterov": False, "ns_coeffs": "exact", "adam_weight_decay": 0.1},
                normuon(nesterov=False, rows=None),
                {"scale": "jordan", "eps": 1e-10, "adam_decay": 0.1},
            ),
            (
                "normuon along the longer side",
                gt.normuon,
                {"axis": "longer"},
                normuon(over=None),
                {"scale": "jordan", "eps": 1e-10, "nesterov": True},
            ),
            ("adamuon", gt.adamuon, {"nesterov": False}, adamuon(nesterov=False), {"decay": 0.01}),
            (
                "namo",
                gt.namo,
                {"nesterov": True, "scaling": "none"},
                namo(nesterov=True),
                {"decay": 0.01, "nesterov": True},
            ),
            (
                "polargrad",
                gt.polargrad,
                {"weight_decay": 0.1, "ns_coeffs": "quintic"},
                polargrad(rows=FIVE),
                {"decay": 0.1},
            ),
            ("aurora", gt.aurora, {}, aurora(), {"scale": "jordan", "decay": 0.025, "nesterov": True}),
            (
                "dion",
                gt.dion,
                {"beta": 0.8, "rank": 1, "seed": 3},
                dion(1, 0.8, seed=3),
                {"scale": "spectral", "decay": 0.01},
            ),
            (
                "dion2",
                gt.dion2,
                {"fraction": 0.5, "ef_decay": 0.5, "ns_coeffs": "quintic", "scaling": "none"},
                dion2(0.5, 0.5, FIVE, safety=1.0),
                {"decay": 0.01},
            ),
        )
    ),
]
