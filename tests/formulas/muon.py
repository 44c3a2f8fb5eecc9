# SPDX-License-Identifier: Apache-2.0
"""The formula of Muon: matrix by matrix, by the singular values that the iteration's polynomial makes."""

import jax
import numpy as np

import gradtx as gt
from support.formulas import case, whole_tree

QUINTIC = [(3.4445, -4.7750, 2.0315)]
EXPRESS = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


def polynomials(s, rows):
    for a, b, c in rows:
        s = a * s + b * s**3 + c * s**5
    return s


def aol(m):
    m = m if m.shape[0] <= m.shape[1] else m.T
    return m / np.sqrt(np.abs(m @ m.T).sum(1, keepdims=True))


SIZES = {
    "frobenius": np.linalg.norm,
    "spectral": lambda m: np.linalg.norm(m, 2),
    "schatten": lambda m: np.sum(np.linalg.svd(m, compute_uv=False) ** 4) ** 0.25,
}


def orthogonal(m, rows, size="frobenius", eps=1e-8, safety=1.0):
    tall = m.shape[0] > m.shape[1]
    scaled = aol(m) if size == "aol" else (m.T if tall else m) / ((SIZES[size](m) + eps) * safety)
    u, s, vt = np.linalg.svd(scaled, full_matrices=False)
    o = u @ vt if rows is None else (u * polynomials(s, rows)) @ vt
    return o.T if tall else o


def over_lengths(x, of, axis, eps):
    return x / np.sqrt(np.sum(of**2, axis, keepdims=True) + eps)


EQUAL = {
    None: lambda m: m,
    "output": lambda m: over_lengths(m, m, 0, 1e-8),
    "input": lambda m: over_lengths(m, m, 1, 1e-8),
    "both": lambda m: over_lengths(over_lengths(m, m, 0, 1e-8), m, 1, 1e-8),
}


def again(o, how):
    if how == "frobenius":
        return o * np.sqrt(min(o.shape)) / np.linalg.norm(o)
    for side in [] if how is None else how.split("_"):
        o = over_lengths(o, o, {"output": 0, "input": 1}[side], 1e-7)
    return o


SCALES = {
    "jordan": lambda i, o: np.sqrt(max(1, o / i)),
    "spectral": lambda i, o: np.sqrt(o / i),
    "none": lambda i, o: 1,
}


def muon(rate, rows, *, beta=0.95, nesterov=True, adaptive=False, size="frobenius", safety=1.0, rms=None,
         decay=0.0, views=None, adam_rate=None, adam_decay=0.0, only=None, corrected=True, equal=None, how=None,
         scale="jordan"):  # fmt: skip  # a table of options
    """`views` says which tensors are matrices: name -> (stack axes, input axes, output axes)."""
    views = views or {"matrix": ((), (0,), (1,))}
    adam_rate = rate if adam_rate is None else adam_rate

    def one(m, g_m):
        n_in, n_out = m.shape
        o = again(orthogonal(EQUAL[equal](m), rows, size, safety=safety), how)
        o = o * np.sum(m * o) if adaptive else o
        return o * (SCALES[scale](n_in, n_out) if rms is None else rms * np.sqrt(max(n_in, n_out)))

    def of_muon(g, s, t, stack, inputs, outputs):
        s["mu"] = beta * s.get("mu", 0) + (1 - beta) * g
        m = s["mu"] / (1 - beta**t)
        if nesterov:
            m = beta * s["mu"] / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        if not corrected:
            m = beta * s["mu"] + (1 - beta) * g if nesterov else s["mu"]
        order = (*stack, *inputs, *outputs)
        turned = np.transpose(m, order)
        shape = turned.shape
        k, n = len(stack), len(stack) + len(inputs)
        flat = turned.reshape(-1, int(np.prod(shape[k:n])), int(np.prod(shape[n:])))
        return np.transpose(np.stack([one(x, None) for x in flat]).reshape(shape), np.argsort(order))

    def of_adam(g, s, t, b1=0.9, b2=0.999):
        s["mu"], s["nu"] = b1 * s.get("mu", 0) + (1 - b1) * g, b2 * s.get("nu", 0) + (1 - b2) * g * g
        m = s["mu"] / (1 - b1**t)
        if nesterov:
            m = b1 * s["mu"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        return m / (np.sqrt(s["nu"] / (1 - b2**t)) + 1e-8)

    @whole_tree
    def step(ps, gs, s, t):
        new = {}
        for name, p in ps.items():
            mine = s.setdefault(name, {})
            if name in views:
                decays = only is None or p.ndim in only
                new[name] = p - rate * (of_muon(gs[name], mine, t, *views[name]) + decay * decays * p)
            else:
                new[name] = p - adam_rate * (of_adam(gs[name], mine, t) + adam_decay * p)
        return new

    return step


FIVE = QUINTIC * 5
VIEWS = {"cube": ((1,), (2,), (0,)), "kernel": ((), (0, 1, 2), (3,)), "matrix": ((), (1,), (0,))}


def numbers(params):
    spec = {
        "cube": gt.MuonDimensionNumbers(2, 0),
        "kernel": gt.MuonDimensionNumbers((0, 1, 2), -1),
        "matrix": gt.MuonDimensionNumbers(1, 0),
    }
    return {n: spec.get(n) for n in params}


CASES = [
    case(lambda: gt.muon(0.02), muon(0.02, FIVE), tolerance=1e-10),
    case(lambda: gt.muon(0.02, nesterov=False, ns_steps=3), muon(0.02, QUINTIC * 3, nesterov=False), tolerance=1e-10),
    case(
        lambda: gt.muon(0.02, "polar_express", adam_learning_rate=0.01, consistent_rms=0.2),
        muon(0.02, EXPRESS, safety=1.02, adam_rate=0.01, rms=0.2),
        tolerance=1e-10,
    ),
    case(
        lambda: gt.muon(
            0.02, muon_weight_dimension_numbers=numbers, adaptive=True, weight_decay=0.1, adam_weight_decay=0.3
        ),
        muon(0.02, FIVE, views=VIEWS, adaptive=True, decay=0.1, adam_decay=0.3),
        "muon of tensors, adaptive",
        tolerance=1e-10,
    ),
    case(
        lambda: gt.muon(
            0.02, beta=0.8, weight_decay=0.1, weight_decay_mask=matrices, muon_weight_dimension_numbers=numbers
        ),
        muon(0.02, FIVE, beta=0.8, views=VIEWS, decay=0.1, only=(2,)),
        "muon with masked decay",
        tolerance=1e-5,  # rounding, 1e-15 at step 20, grows
    ),
    *(
        case(
            lambda size=size: gt.muon(0.02, preconditioning=size),
            muon(0.02, FIVE, size=size),
            f"muon {size}",
            tolerance,
        )
        for size, tolerance in (("spectral", 1e-10), ("schatten", 1e-10), ("aol", 1e-5))  # without eps in the last
    ),
    case(
        lambda: gt.muon(0.02, "exact", bias_correction=False, scaling="spectral"),
        muon(0.02, None, corrected=False, scale="spectral"),
        "muon exact, without bias correction",
        tolerance=1e-10,
    ),
    case(
        lambda: gt.muon(0.02, bias_correction=False, nesterov=False, adaptive=True, scaling="none"),
        muon(0.02, FIVE, corrected=False, nesterov=False, adaptive=True, scale="none"),
        "muon adaptive, without bias correction",
        tolerance=1e-10,
    ),
    *(
        case(
            lambda sides=sides, how=how: gt.muon(0.02, equilibrate=sides, renormalize=how),
            muon(0.02, FIVE, equal=sides, how=how),
            f"muon equilibrate={sides}, renormalize={how}",
            tolerance=1e-8,
        )
        for sides, how in (
            ("output", "frobenius"),
            ("input", "output"),
            ("both", "input_output"),
            (None, "output_input"),
        )
    ),
]
