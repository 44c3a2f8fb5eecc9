# SPDX-License-Identifier: Apache-2.0
"""L-BFGS with the matrix H written out (Nocedal and Wright 2006, equation 7.19)."""

import numpy as np

import gradtx as gt
from support.formulas import case, whole_tree


def flat(tree):
    return np.concatenate([np.ravel(tree[n]) for n in tree])


def lbfgs(rate, memory_size, scaled):
    @whole_tree
    def step(p, g, memory, t):
        x, d = flat(p), flat(g)
        pairs = memory.setdefault("pairs", [])
        if t > 1:
            s, y = x - memory["x"], d - memory["g"]
            pairs.append((s, y) if s @ y > np.finfo(float).eps * (y @ y) else None)
            del pairs[:-memory_size]
        memory |= {"x": x, "g": d}
        known = [pair for pair in pairs if pair]
        gamma = 1.0
        if scaled:
            gamma = known[-1][0] @ known[-1][1] / (known[-1][1] @ known[-1][1]) if known else min(1, 1 / np.sqrt(d @ d))
        h = gamma * np.eye(len(x))
        for s, y in known:
            v = np.eye(len(x)) - np.outer(y, s) / (s @ y)
            h = v.T @ h @ v + np.outer(s, s) / (s @ y)
        moved, new, start = x - rate * (h @ d), {}, 0
        for n, value in p.items():
            new[n] = moved[start : start + value.size].reshape(value.shape)
            start += value.size
        return new

    return step


CASES = [
    case(lambda: gt.lbfgs(0.5, 3, linesearch=None), lbfgs(0.5, 3, True), tolerance=1e-9),
    case(lambda: gt.lbfgs(0.2, 10, False, linesearch=None), lbfgs(0.2, 10, False), tolerance=1e-9),
    case(lambda: gt.chain(gt.scale_by_lbfgs(1), gt.scale(-0.3)), lbfgs(0.3, 1, True), tolerance=1e-9),
]
