# SPDX-License-Identifier: Apache-2.0
"""Formulas of Shampoo's family: preconditioners with a factor for each axis of a tensor."""

import jax
import numpy as np

import gradtx as gt
from formulas.first_rules import matrices
from formulas.variants import root_mean_square
from support.formulas import case


def unfolded(x, axis):
    """The matrix whose rows are the slices of x along an axis."""
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def kron(matrices):
    """The matrix that acts on a flattened tensor as these do on its axes."""
    whole = np.ones((1, 1))
    for m in matrices:
        whole = np.kron(whole, m)
    return whole


def vectors(matrix):
    return np.linalg.eigh(matrix)[1][:, ::-1]


def with_bases(shape, largest):
    return [a for a, n in enumerate(shape) if len(shape) > 1 and n <= largest]


def all_bases(shape, bases):
    return kron([bases.get(a, np.eye(n)) for a, n in enumerate(shape)])


def sides(decay, only=None):
    return lambda p: decay if only is None or p.ndim in only else 0.0


def soap(rate, b1=0.95, b2=0.95, eps=1e-8, decay=0.01, of_factors=None, f=10, largest=10000, corrected=True, only=None):
    """On flattened tensors, with the Kronecker product of all bases as one orthogonal matrix."""
    of_factors = b2 if of_factors is None else of_factors

    def step(p, g, s, t):
        axes, n = with_bases(g.shape, largest), t - 1
        outer = {a: unfolded(g, a) @ unfolded(g, a).T for a in axes}
        if t == 1:
            s["L"] = {a: (1 - of_factors) * outer[a] for a in axes}
            s["Q"] = {a: vectors(s["L"][a]) for a in axes}
            s["m"], s["v"] = np.zeros(g.size), np.zeros(g.size)
            return p
        basis = all_bases(g.shape, s["Q"])
        r = basis.T @ g.ravel()
        s["m"], s["v"] = b1 * s["m"] + (1 - b1) * r, b2 * s["v"] + (1 - b2) * r**2
        u = basis @ (s["m"] / (np.sqrt(s["v"]) + eps))
        u = u * np.sqrt(1 - b2**n) / (1 - b1**n) if corrected else u
        new = p - rate * u.reshape(p.shape)
        new = new - rate * sides(decay, only)(p) * new
        s["L"] = {a: of_factors * s["L"][a] + (1 - of_factors) * outer[a] for a in axes}
        if n % f == 0:
            v = s["v"].reshape(g.shape)
            for a in axes:
                q = s["Q"][a]
                order = np.argsort(-np.diag(q.T @ s["L"][a] @ q))
                v = np.take(v, order, a)
                s["Q"][a] = np.linalg.qr(s["L"][a] @ q[:, order])[0]
            s["m"], s["v"] = all_bases(g.shape, s["Q"]).T @ basis @ s["m"], v.ravel()
        return new

    return step


def kl(rate, of_adam, b1=0.9, b2=0.98, eps=1e-8, decay=0.01, f=10, first=0.1, clamp=4000, largest=10000, only=None):
    """KL-Shampoo, or KL-SOAP if `of_adam`: each axis sees the gradient as the other axes' factors have whitened it."""

    def step(p, g, s, t):
        shape = g.shape or (1,)
        axes, n, size = with_bases(shape, largest), t - 1, g.size
        g = g.reshape(shape)
        if t == 1:
            s["L"] = {a: (1 - b2) * unfolded(g, a) @ unfolded(g, a).T * shape[a] / size for a in axes}
            s["Q"] = {a: vectors(s["L"][a]) for a in axes}
            s["h"] = [np.full(k, first**-0.5) for k in shape]
            s["lambda"] = [np.full(k, first) for k in shape]
            s["m"], s["v"] = np.zeros(size), np.zeros(size)
            return p
        basis = all_bases(shape, s["Q"])
        if of_adam:
            r = basis.T @ g.ravel()
            s["m"], s["v"] = b1 * s["m"] + (1 - b1) * r, b2 * s["v"] + (1 - b2) * r**2
            u = basis @ (s["m"] / (np.sqrt(s["v"]) + eps))
        else:
            s["m"] = b1 * s["m"] + (1 - b1) * g.ravel()
            e = kron([h[:, None] for h in s["h"]])[:, 0]
            u = basis @ ((basis.T @ s["m"]) * e / (1 + eps * e))
        new = p - rate * u.reshape(p.shape)
        new = new - rate * sides(decay, only)(p) * new
        factors, eigenvalues = dict(s["L"]), list(s["lambda"])
        for a, k in enumerate(shape):
            others = kron(
                [np.eye(w) if i == a else np.diag(s["h"][i]) @ s["Q"].get(i, np.eye(w)).T for i, w in enumerate(shape)]
            )
            white = unfolded((others @ g.ravel()).reshape(shape), a)
            if a in axes:
                factors[a] = b2 * s["L"][a] + (1 - b2) * white @ white.T * k / size
            inside = s["Q"].get(a, np.eye(k)).T @ white
            eigenvalues[a] = b2 * s["lambda"][a] + (1 - b2) * np.mean(inside**2, axis=1)
        s["L"], s["lambda"] = factors, eigenvalues
        s["h"] = [np.minimum(x**-0.5, max(10, min(len(x), clamp))) for x in eigenvalues]
        if n % f == 0:
            s["Q"] = {a: np.linalg.qr(s["L"][a] @ s["Q"][a])[0] for a in axes}
            s["m"] = all_bases(shape, s["Q"]).T @ basis @ s["m"] if of_adam else s["m"]
        return new

    return step


def power(matrix, exponent):
    values, q = np.linalg.eigh(matrix)
    return (q * values**exponent) @ q.T


def shampoo(rate, b1=0.9, b2=1.0, eps=1e-12, decay=0.0, exponents=None, f=1, start=None, graft=None, blocks=1024,
            shapes=None, corrected=True, only=None):  # fmt: skip  # a table of options
    """Block by block. `shapes` says what tensors are merged to; `exponents`, what the power is for each axis."""
    start = f if start is None else start
    averages = {"adam": 0.999, "rmsprop": 0.99, "adagrad": 1.0}

    def of_block(g, x, y, s, t):
        k = g.ndim
        powers = (exponents or {}).get(k, (1 / (2 * k),) * k)
        u = x
        for a, e in enumerate(powers):
            if e == 0:
                continue
            outer = unfolded(g, a) @ unfolded(g, a).T
            s["L", a] = b2 * s.get(("L", a), 0) + (1 if b2 == 1 else 1 - b2) * outer
            if t == start or (t > start and t % f == 0):
                whole = s["L", a] / (1 - b2**t) if corrected and b2 < 1 else s["L", a]
                s["R", a] = power(whole + eps * np.eye(len(whole)), -e)
            if ("R", a) in s:
                u = np.moveaxis(np.tensordot(s["R", a], u, (1, a)), 0, a)
        if graft is None:
            return u
        return y if t < start else u * np.linalg.norm(y) / (np.linalg.norm(u) + 1e-16)

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        x = s["m"] / (1 - b1**t) if corrected else s["m"]
        b = averages.get(graft or "", 0.0)
        s["v"] = b * s.get("v", 0) + (1 if b == 1 else 1 - b) * g**2
        v = s["v"] / (1 - b**t) if graft == "adam" else s["v"]
        y = x / (np.sqrt(v) + 1e-10) if b else x
        shape = (shapes or {}).get(g.shape, g.shape or (1,))
        u = np.empty(shape)
        for corner in np.ndindex(*[-(-n // blocks) for n in shape]):
            part = tuple(slice(i * blocks, (i + 1) * blocks) for i in corner)
            mine = s.setdefault(corner, {})
            in_g, in_x, in_y = (z.reshape(shape)[part] for z in (g, x, y))
            u[part] = of_block(in_g, in_x, in_y, mine, t)
        return p - rate * (u.reshape(p.shape) + sides(decay, only)(p) * p)

    return step


def splus(rate, b1=0.9, b2=0.999, decay=0.01, f=100, other=0.001, largest=10000, only=None):
    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        if p.ndim != 2 or max(p.shape) > largest:
            return p - rate * other * (np.sign(s["m"]) + sides(decay, only)(p) * p)
        left, right = s.get("Q", (np.eye(len(p)), np.eye(p.shape[1])))
        u = left @ np.sign(left.T @ s["m"] @ right) @ right.T
        s["L"], s["R"] = (b2 * s.get(k, 0) + (1 - b2) * x for k, x in (("L", g @ g.T), ("R", g.T @ g)))
        if t == 1 or t % f == 0:
            s["Q"] = vectors(s["L"]), vectors(s["R"])
        return p - rate * 2 / sum(p.shape) * (u + sides(decay, only)(p) * p)

    return step


def annealed(t):
    return min(1, max(0.03, np.exp(-0.001 * (t - 500))))


def largest_at_least(a):
    """One power step from the largest column."""
    x = a @ a[:, np.argmax(np.linalg.norm(a, axis=0))]
    return np.linalg.norm(a @ x) / np.linalg.norm(x)


def psgd_kron(rate, b1=0.9, decay=0.0, chance=annealed, lr=0.1, init=1.0, largest=8192, clip=1.1, seed=0, only=None):
    """With dense matrices, and the Kronecker products of all factors; diagonal ones are kept diagonal."""

    def step(p, g, s, t):
        shape = g.shape or (1,)
        k = len(shape)
        if t == 1:
            s["Q"], s["since"], s["mu"] = [init ** (1 / k) * np.eye(n) for n in shape], 0, 0
        s["mu"] = b1 * s["mu"] + (1 - b1) * g.reshape(shape)
        m = s["mu"] / (1 - b1**t)
        s["since"] += 1
        if s["since"] >= 1 / chance(t):
            s["since"] = 0
            first, second = jax.random.split(jax.random.fold_in(jax.random.key(seed), t))
            if jax.random.uniform(first) < 0.01:
                sizes = [np.abs(q).max() for q in s["Q"]]
                s["Q"] = [q * np.prod(sizes) ** (1 / k) / size for q, size in zip(s["Q"], sizes, strict=True)]
            v = np.asarray(jax.random.normal(second, shape, np.float64))
            h = m + np.sqrt(np.finfo(np.float32).eps) * np.abs(m).mean() * v
            whole = kron(s["Q"])
            a, b = (whole @ h.ravel()).reshape(shape), np.linalg.solve(whole.T, v.ravel()).reshape(shape)
            for axis, q in enumerate(s["Q"]):
                one, two = (unfolded(x, axis) @ unfolded(x, axis).T for x in (a, b))
                if k > 1 and 1 < len(q) <= largest:
                    s["Q"][axis] = q - lr * np.triu(one - two) @ q / largest_at_least(one + two)
                else:
                    s["Q"][axis] = q - lr * np.diag(np.diag(one - two)) @ q / np.diag(one + two).max()
        whole = kron(s["Q"])
        u = (whole.T @ whole @ m.ravel()).reshape(p.shape)
        u = u * min(1, clip / root_mean_square(u))
        return p - rate * (u + sides(decay, only)(p) * p)

    return step


CASES = [
    case(lambda: gt.soap(0.03, eps=1e-3), soap(0.03, eps=1e-3)),
    case(
        lambda: gt.soap(
            0.03, 0.9, 0.97, 1e-4, 0.1, shampoo_b2=0.8, precondition_frequency=3, max_precond_dim=3,
            bias_correction=False, mask=matrices,
        ),
        soap(0.03, 0.9, 0.97, 1e-4, 0.1, of_factors=0.8, f=3, largest=3, corrected=False, only=(2,)),
        "soap, all options",
    ),
    case(lambda: gt.kl_shampoo(0.003), kl(0.003, False)),
    case(
        lambda: gt.kl_shampoo(
            0.01, 0.8, 0.9, 0.1, 0.1, precondition_frequency=3, init_factor=0.5, max_clamp=11, max_precond_dim=3,
            mask=matrices,
        ),
        kl(0.01, False, 0.8, 0.9, 0.1, 0.1, f=3, first=0.5, clamp=11, largest=3, only=(2,)),
        "kl_shampoo, all options",
    ),
    case(lambda: gt.kl_soap(0.003, eps=1e-3), kl(0.003, True, eps=1e-3)),
    case(
        lambda: gt.kl_soap(
            0.01, 0.8, 0.9, 0.1, 0.1, precondition_frequency=3, init_factor=0.5, max_clamp=11, max_precond_dim=3,
            mask=matrices,
        ),
        kl(0.01, True, 0.8, 0.9, 0.1, 0.1, f=3, first=0.5, clamp=11, largest=3, only=(2,)),
        "kl_soap, all options",
    ),
    case(lambda: gt.shampoo(0.03, eps=1e-3), shampoo(0.03, eps=1e-3)),
    case(
        lambda: gt.shampoo(
            0.03, 0.8, 0.9, 1e-2, 0.1, precondition_frequency=3, start_step=5, graft="adam", block_size=2, mask=matrices
        ),
        shampoo(0.03, 0.8, 0.9, 1e-2, 0.1, f=3, start=5, graft="adam", blocks=2, only=(2,)),
        "shampoo in blocks of 2",
    ),
    case(
        lambda: gt.shampoo(0.03, b2=0.9, eps=1e-2, block_size=6, merge_dims=True, graft="rmsprop"),
        shampoo(
            0.03, b2=0.9, eps=1e-2, blocks=6, graft="rmsprop", shapes={(2, 3, 2): (2, 6), (2, 2, 3, 2): (4, 6)}
        ),
        "shampoo of merged axes",
    ),
    case(
        lambda: gt.shampoo(
            0.01, b2=0.9, eps=1e-2, exponent={1: 0, 2: (0.5, 0), 3: 0.4}, bias_correction=False, graft="adagrad"
        ),
        shampoo(
            0.01, b2=0.9, eps=1e-2, exponents={1: (0,), 2: (0.5, 0), 3: (0.4,) * 3}, corrected=False, graft="adagrad"
        ),
        "shampoo with exponents",
    ),
    case(
        lambda: gt.shampoo(0.03, b2=0.9, eps=1e-2, precondition_frequency=4, graft="sgd"),
        shampoo(0.03, b2=0.9, eps=1e-2, f=4, graft="sgd"),
    ),
    case(lambda: gt.splus(0.1), splus(0.1)),
    case(
        lambda: gt.splus(0.1, 0.8, 0.9, 0.1, precondition_frequency=3, ema=None, other_scale=0.1, mask=matrices),
        splus(0.1, 0.8, 0.9, 0.1, f=3, other=0.1, only=(2,)),
        "splus, all options",
    ),
    case(lambda: gt.splus(0.1, max_precond_dim=3), splus(0.1, largest=3)),
    case(lambda: gt.psgd_kron(0.01), psgd_kron(0.01)),
    case(
        lambda: gt.psgd_kron(
            0.01, 0.8, 0.1, precondition_probability=0.4, precondition_lr=0.2, init_scale=3.0, max_size_triangular=3,
            clip=0.5, seed=3, mask=matrices,
        ),
        psgd_kron(0.01, 0.8, 0.1, lambda t: 0.4, 0.2, 3.0, 3, 0.5, 3, only=(2,)),
        "psgd_kron, all options",
    ),
]  # fmt: skip  # calls by the order of their signatures
