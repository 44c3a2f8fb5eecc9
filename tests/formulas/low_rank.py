# SPDX-License-Identifier: Apache-2.0
"""Formulas of GaLore, Fira and APOLLO: Adam on a projection of each matrix."""

import jax
import jax.numpy as jnp
import numpy as np

import gradtx as gt
from formulas.first_rules import matrices
from formulas.variants import adam, momentum, norm, steps
from support.formulas import case, whole_tree


def rows_first(g, left):
    """The matrix with the projected side as its rows."""
    return g if left else g.T


def singular_vectors(g, left, r):
    """The first r singular vectors on the projected side.

    Their signs are arbitrary, but matter where moments live on in a new basis: they are taken from JAX's.
    """
    (u, _, vt), (like_u, _, like_vt) = np.linalg.svd(g, full_matrices=False), jnp.linalg.svd(g, full_matrices=False)
    vectors, like = (u[:, :r], like_u[:, :r]) if left else (vt[:r].T, like_vt[:r].T)
    return vectors * np.sign(np.sum(vectors * np.asarray(like), axis=0))


def ratio(low, before, by_channel):
    """Of the norms of N and R, for each column or for all."""
    axis = 0 if by_channel else None
    return np.sqrt(np.sum(low**2, axis) / np.sum(before**2, axis))


def limited(u, s, growth):
    size = norm(u)
    if "norm" in s and size > growth * s["norm"]:
        u, size = u / size * growth * s["norm"], growth * s["norm"]
    s["norm"] = size
    return u


def galore_step(g, basis, base, s, scale=1.0):
    return scale * basis @ base(basis.T @ g)


def fira_step(g, basis, base, s, scale=1.0, growth=1.01, by_channel=True):
    r = basis.T @ g
    n = base(r)
    rest = limited(ratio(n, r, by_channel) * (g - basis @ r), s, growth)
    return scale * (basis @ n + rest)


def apollo_step(g, basis, base, s, scale=1.0, growth=1.01, by_channel=True):
    r = basis.T @ g
    return scale * limited(ratio(base(r), r, by_channel) * g, s, growth)


ORDER = ["cube", "kernel", "matrix", "scalar", "vector"]  # of the leaves, which numbers the random projections


def low_rank(method, rate, rank, gap, base, *, larger=False, seed=None, views=None, decay=0.0, only=None, **options):
    """`views` says which tensors are matrices: (rows, columns, transposition); by default the one of rank 2."""
    views = views or {"matrix": (4, 3, (0, 1))}

    def update(name, p, g, s, t):
        if name not in views:
            return base(p, g, s, t)
        m, n, axes = views[name]
        left = m >= n if larger else m <= n
        matrix = np.transpose(g, axes).reshape(m, n)
        if seed is not None:
            draws = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), (t - 1) // gap), ORDER.index(name))
            r = min(rank, m, n)
            s["P"] = np.asarray(jax.random.normal(draws, (m if left else n, r), np.float64)) / np.sqrt(r)
        elif (t - 1) % gap == 0:
            s["P"] = singular_vectors(matrix, left, min(rank, m, n))
        inner = s.setdefault("base", {})
        u = method(rows_first(matrix, left), s["P"], lambda r: base(None, r, inner, t), s, **options)
        return np.transpose(rows_first(u, left).reshape([g.shape[i] for i in axes]), np.argsort(axes))

    @whole_tree
    def step(ps, gs, s, t):
        new = {}
        for name, p in ps.items():
            decays = only is None or p.ndim in only
            u = update(name, p, gs[name], s.setdefault(name, {}), t)
            new[name] = p - rate * (u + (decay * p if decays else 0.0))
        return new

    return step


def numbers(params):
    return {
        "cube": gt.GaLoreDimensionNumbers((0, 2), 1),
        "kernel": gt.GaLoreDimensionNumbers(-2, (3, 0, 1)),
        "matrix": gt.GaLoreDimensionNumbers(1, 0),
        "scalar": None,
        "vector": None,
    }


# (2, 3, 2) with axes 0 and 2 as rows; (2, 2, 3, 2) with axis 2 as rows; the transposed matrix.
VIEWS = {"cube": (4, 3, (0, 2, 1)), "kernel": (3, 8, (2, 3, 0, 1)), "matrix": (3, 4, (1, 0))}
ADAM, HEAVY = gt.scale_by_adam(eps=1e-3), gt.trace(0.9)
LOOSE = dict(eps=1e-3)

CASES = [
    case(
        lambda: gt.galore(0.03, 2, 5, 0.5, ADAM),
        low_rank(galore_step, 0.03, 2, 5, adam(**LOOSE), larger=True, scale=0.5),
    ),
    case(
        lambda: gt.galore(0.03, 2, 4, 0.5, ADAM, side="smaller"),
        low_rank(galore_step, 0.03, 2, 4, adam(**LOOSE), scale=0.5),
    ),
    case(
        lambda: gt.galore(0.03, 2, 4, base_optimizer=ADAM, weight_dimension_numbers=numbers),
        low_rank(galore_step, 0.03, 2, 4, adam(**LOOSE), larger=True, views=VIEWS),
        "galore of tensors",
    ),
    case(
        lambda: gt.galore(0.01, 1, 4, 2.0, HEAVY, 0.1, matrices),
        low_rank(galore_step, 0.01, 1, 4, momentum(0.9), larger=True, scale=2.0, decay=0.1, only=(2,)),
        "galore of momentum, with decay",
    ),
    # The rank is cut to what the matrix has.
    case(lambda: gt.galore(0.03, 8), low_rank(galore_step, 0.03, 8, 200, adam(), larger=True), "galore, full rank"),
    case(lambda: gt.fira(0.03, 2, 4, 1.0, ADAM), low_rank(fira_step, 0.03, 2, 4, adam(**LOOSE))),
    case(
        lambda: gt.fira(0.03, 1, 3, 0.5, ADAM, 0.1, matrices, numbers, growth=1.2, scaling="tensor", side="larger"),
        low_rank(
            fira_step,
            0.03,
            1,
            3,
            adam(**LOOSE),
            larger=True,
            views=VIEWS,
            decay=0.1,
            only=(2,),
            scale=0.5,
            growth=1.2,
            by_channel=False,
        ),
        "fira, all options",
    ),
    case(lambda: gt.apollo(0.03, 2, 4, base_optimizer=ADAM), low_rank(apollo_step, 0.03, 2, 4, adam(**LOOSE), seed=0)),
    case(
        lambda: gt.apollo(
            0.03, 2, 3, 0.5, ADAM, 0.1, matrices, numbers, growth=1.2, scaling="tensor", side="larger", seed=7
        ),
        low_rank(
            apollo_step,
            0.03,
            2,
            3,
            adam(**LOOSE),
            larger=True,
            seed=7,
            views=VIEWS,
            decay=0.1,
            only=(2,),
            scale=0.5,
            growth=1.2,
            by_channel=False,
        ),
        "apollo, all options",
    ),
    case(
        lambda: gt.apollo_mini(0.003, update_proj_gap=3, base_optimizer=ADAM, weight_decay=0.1),
        low_rank(apollo_step, 0.003, 1, 3, adam(**LOOSE), seed=0, decay=0.1, scale=np.sqrt(128), by_channel=False),
    ),
    case(
        lambda: gt.chain(gt.low_rank(ADAM, 2, 3, 0.5, projection="random", seed=3), gt.scale_by_lr(0.03)),
        low_rank(galore_step, 0.03, 2, 3, adam(**LOOSE), seed=3, scale=0.5),
    ),
    case(
        lambda: gt.chain(gt.scale_by_apollo(2, 3, base_optimizer=ADAM, projection="svd"), gt.scale_by_lr(0.03)),
        low_rank(apollo_step, 0.03, 2, 3, adam(**LOOSE)),
    ),
    # Without a projection APOLLO's random one must not be seen: its base is the identity, so that ‖N‖ = ‖R‖.
    case(
        lambda: gt.apollo(0.1, base_optimizer=gt.identity(), growth=100.0),
        steps(lambda p, g, s, t: g, 0.1),
        "apollo of the identity is descent",
    ),
]
