# SPDX-License-Identifier: Apache-2.0
"""Formulas of wrappers that choose which steps an optimizer takes, of what size, or that record them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx as gt
from formulas.averaging import Hidden
from formulas.clipping import adam, clipping, descended, norm, overflowing, showing, shown, spiking
from formulas.controlled import lookahead
from formulas.scaled import turned
from support.formulas import case, whole_tree


@gt.transformation
def in_pairs(inner: Any) -> Any:
    """Keeps a pair of parameters for `lookahead`, and moves the parameters to the slow ones."""

    def init(params):
        pair = gt.states.LookaheadParams.init_synced(params)
        return Hidden(inner.init(pair), pair)

    def update(g, state, params=None, **extra):
        u, inner_state = inner.update(g, state.inner, state.params, **extra)
        pair = gt.apply_updates(state.params, u)
        return jax.tree.map(jnp.subtract, pair.slow, params), Hidden(inner_state, pair)

    return gt.GradientTransformationExtraArgs(init, update)


def all_finite(gs):
    return all(np.all(np.isfinite(g)) for g in gs.values())


def moved(ps, us, **seen):
    return {n: ps[n] + u for n, u in shown(us, seen).items()}


# Gradient accumulation. What is dropped is `drops(gs) -> whether, report`.


def nothing(gs):
    return False, {}


def not_finite(gs):
    number = sum(np.sum(~np.isfinite(g)) for g in gs.values())
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def large(limit):
    def drops(gs):
        square = sum(np.sum(g**2) for g in gs.values())
        return square > limit, {"should_skip": square > limit, "norm_squared": square}

    return drops


def in_rounds(rate, k, mean=True, drops=not_finite, stored: Any = np.float64, show=True):
    """`k` may be a function of the number of updates made; the mean or sum of the gradients is of the type `stored`."""

    @whole_tree
    def step(ps, gs, s, t):
        if s.get("calls", 0) == 0:
            s.update(calls=0, kept=0, made=s.get("made", 0), skipped=s.get("skipped", 0))
        s["calls"] += 1
        skip, report = drops(gs)
        if skip:
            s["skipped"] += 1
        else:
            s["kept"] += 1
            for n, g in gs.items():
                acc = np.float64(s[n]) if s["kept"] > 1 else 0.0
                s[n] = (acc + (g - acc) / s["kept"] if mean else acc + g).astype(stored)
        us = {n: np.zeros_like(p) for n, p in ps.items()}
        if s["calls"] >= (k(s["made"]) if callable(k) else k):
            s["calls"] = 0
            if s["kept"] > 0:
                s["made"] += 1
                us = {n: -rate * np.float64(s[n]) for n in ps}
        counts = {"mini_step": s["calls"], "gradient_step": s["made"], "skipped": s["skipped"], "kept": s["kept"]}
        return moved(ps, us, **(counts | report if show else {}))

    return step


def of_rounds(state):
    return {**state.metrics(), "kept": state.skip_state.kept, **dict(state.skip_state.report)}


def doubling(count):
    return jnp.minimum(1 + 2 * count, 5) if isinstance(count, jax.Array) else min(1 + 2 * count, 5)


def rounds(*args, **kwargs):
    return showing(gt.MultiSteps(gt.sgd(0.05), *args, **kwargs), of_rounds)


# Steps that are left out.


def loss_scaled(rate, initial, interval, factor, minimum):
    @whole_tree
    def step(ps, gs, s, t):
        if t == 1:
            s.update(scale=initial, good=0, skipped=0)
        us = {n: np.zeros_like(g) for n, g in gs.items()}
        if all_finite(gs):
            us = {n: -rate * g / s["scale"] for n, g in gs.items()}
            s["good"] += 1
            if s["good"] == interval:
                s.update(scale=s["scale"] * factor, good=0)
        else:
            s.update(scale=max(s["scale"] / factor, minimum), good=0, skipped=s["skipped"] + 1)
        return moved(ps, us, loss_scale=s["scale"], skipped=s["skipped"], step_skipped=not all_finite(gs))

    return step


def if_finite(rate, limit, patience):
    """Clipped descent, with infinite gradients too after so many in a row; clipped, they are finite."""

    @whole_tree
    def step(ps, gs, s, t):
        s["bad"] = 0 if all_finite(gs) else s.get("bad", 0) + 1
        if 0 < s["bad"] <= patience:
            return ps
        return {n: p - rate * np.clip(gs[n], -limit, limit) for n, p in ps.items()}

    return step


# Others.


def started_anew(rate, momentum, every):
    def step(p, g, s, t):
        s["v"] = g if (t - 1) % every == 0 else momentum * s["v"] + g
        return p - rate * s["v"]

    return step


def grafted(rate, momentum, whole):
    """The direction of Adam with the size of a step of momentum."""

    @whole_tree
    def step(ps, gs, s, t):
        d = {n: adam(g, s.setdefault(n, {})) for n, g in gs.items()}
        m = s["m"] = {n: momentum * s.get("m", {}).get(n, 0.0) + g for n, g in gs.items()}
        sizes = {n: (norm(m), norm(d)) if whole else (np.linalg.norm(m[n]), np.linalg.norm(d[n])) for n in gs}
        return {n: p - rate * (d[n] * sizes[n][0] / sizes[n][1] if sizes[n][1] else 0 * p) for n, p in ps.items()}

    return step


def recorded(limit):
    """Clipping by the global norm, with what is recorded around it."""

    @whole_tree
    def step(ps, gs, s, t):
        before = norm(gs)
        s["clipped"] = s.get("clipped", 0) + (before > limit)
        us = {n: g * min(1, limit / before) for n, g in gs.items()}
        seen = {
            "grad_norm": before,
            "update_norm": norm(us),
            "parameter_norm": norm(ps),
            "relative_update": norm(us) / norm(ps),
            "clip_fraction": s["clipped"] / t,
        }
        return descended(ps, us, **seen)

    return step


NAMES = ("grad_norm", "update_norm", "parameter_norm", "relative_update", "clip_fraction")

CASES = [
    case(lambda: rounds(3), in_rounds(0.05, 3), "MultiSteps", gradient=overflowing),
    case(lambda: rounds(1), in_rounds(0.05, 1), "MultiSteps of one", gradient=overflowing),
    case(
        lambda: rounds(2, False, None),
        in_rounds(0.05, 2, False, nothing),
        "MultiSteps, the sum, nothing dropped",
        gradient=spiking,
    ),
    case(
        lambda: rounds(
            4, should_skip_update_fn=functools.partial(gt.skipping.skip_large_updates, max_squared_norm=500.0)
        ),
        in_rounds(0.05, 4, drops=large(500.0)),
        "MultiSteps without large gradients",
        gradient=overflowing,
    ),
    case(
        lambda: gt.MultiSteps(gt.sgd(0.05), 3, accumulator_dtype=jnp.float32),
        in_rounds(0.05, 3, stored=np.float32, show=False),
        "MultiSteps in float32",
        gradient=overflowing,
    ),
    case(lambda: rounds(doubling), in_rounds(0.05, doubling), "MultiSteps of growing rounds", gradient=overflowing),
    case(
        lambda: showing(turned(gt.MultiSteps(gt.sgd(0.05), 3)), of_rounds),
        in_rounds(0.05, 3),
        "MultiSteps, complex",
        gradient=overflowing,
    ),
    case(
        lambda: showing(gt.dynamic_loss_scale(gt.sgd(0.1), 6.0, 2, 3.0, 1.5)),
        loss_scaled(0.1, 6.0, 2, 3.0, 1.5),
        gradient=overflowing,
    ),
    case(
        lambda: showing(gt.dynamic_loss_scale(gt.sgd(0.1), 16.0, 3, 2.0, 4.0)),
        loss_scaled(0.1, 16.0, 3, 2.0, 4.0),
        gradient=overflowing,
    ),
    case(
        lambda: gt.apply_if_finite(gt.chain(gt.clip(1.0), gt.sgd(0.1)), 1),
        if_finite(0.1, 1.0, 1),
        gradient=overflowing,
    ),
    case(lambda: gt.reset_every(gt.sgd(0.1, momentum=0.8), 3), started_anew(0.1, 0.8, 3)),
    case(lambda: gt.reset_every(gt.sgd(0.1, momentum=0.8), 1), started_anew(0.1, 0.8, 1)),
    case(
        lambda: gt.chain(gt.graft(gt.scale_by_adam(), gt.trace(0.8)), gt.scale_by_lr(0.1)),
        grafted(0.1, 0.8, False),
        gradient=spiking,
    ),
    case(
        lambda: gt.chain(gt.graft(gt.scale_by_adam(), gt.trace(0.8), "tree"), gt.scale_by_lr(0.1)),
        grafted(0.1, 0.8, True),
        gradient=spiking,
    ),
    case(lambda: in_pairs(gt.lookahead(gt.sgd(0.3), 3, 0.5)), lookahead(0.3, 3, 0.5, shown="slow")),
    case(
        lambda: clipping(gt.record_metrics(gt.clip_by_global_norm(8.0), NAMES)),
        recorded(8.0),
        gradient=spiking,
    ),
]
