# SPDX-License-Identifier: Apache-2.0
"""Formulas of Lookahead, of ASAM and GSAM, and of stages that a metric controls."""

import jax.numpy as jnp
import numpy as np

import gradtx as gt
from formulas.averaging import ascent, evaluated, everything, feeding, norm, other_gradient, sam, with_gradients
from formulas.clipping import showing
from support.formulas import case, whole_tree


def lookahead(rate, period, follow, *, momentum=0.0, reset=False, shown="fast"):
    def step(p, g, s, t):
        if t == 1:
            s.update(fast=p, slow=p, v=0.0)
        s["v"] = momentum * s["v"] + g
        s["fast"] = s["fast"] - rate * s["v"]
        if t % period == 0:
            s["fast"] = s["slow"] = (1 - follow) * s["slow"] + follow * s["fast"]
            s["v"] = 0.0 if reset else s["v"]
        return s[shown]

    return step


def asam(rate, rho, offset):
    """Every step is one of ascent or the step down."""

    @whole_tree
    def step(ps, gs, s, t):
        if t % 2 == 1:
            s["p"] = ps
            size = {n: np.abs(p) + offset for n, p in ps.items()}
            length = norm({n: size[n] * g for n, g in gs.items()})
            return {n: p + rho * size[n] ** 2 * gs[n] / length for n, p in ps.items()}
        return {n: p - rate * gs[n] for n, p in s["p"].items()}

    return step


def without_gap(hs, gs, alpha):
    along = sum(np.sum(hs[n] * gs[n]) for n in hs) / norm(hs) ** 2
    return {n: hs[n] - alpha * (gs[n] - along * hs[n]) for n in hs}


def gsam(rate, rho, period, alpha):
    @whole_tree
    def step(ps, gs, s, t):
        a = alpha(t - 1) if callable(alpha) else alpha
        if t % period == 1:
            s.update(p=ps, g=gs)
        if t % period != 0:
            return {n: q + rho * gs[n] / norm(gs) for n, q in ps.items()}
        h = without_gap(gs, s["g"], a)
        return {n: p - rate * h[n] for n, p in s["p"].items()}

    return step


def opaque_gsam(rate, rho, period, alpha):
    @whole_tree
    def step(ps, gs, s, t):
        q, first = ps, gs
        for i in range(period - 1):
            q = {n: x + rho * gs[n] / norm(gs) for n, x in q.items()}
            gs = other_gradient(q, i)
        h = without_gap(gs, first, alpha)
        return {n: p - rate * h[n] for n, p in ps.items()}

    return step


def by_magnitude(rate, offset):
    return lambda p, g, s, t: p - rate * g * (np.abs(p) + offset)


def below_two(params):
    """A metric that falls, stands still, and is negative."""
    x = everything(params)
    return {"value": jnp.mean(x**2) - 2}


def above_minus_two(params):
    """The same, with the other sign: it rises."""
    return {"value": -below_two(params)["value"]}


def on_plateau(rate, factor, patience, rtol, atol=0.0, cooldown=0, size=1, least=0.0, sign=1):
    """`sign` -1 for a metric that should be large."""

    @whole_tree
    def step(ps, gs, s, t):
        s.setdefault("values", []).append(sign * (np.mean(np.concatenate([p.ravel() for p in ps.values()]) ** 2) - 2))
        if len(s["values"]) == size:
            value, s["values"] = np.mean(s["values"]), []
            best = s.get("best", np.inf)
            margin = rtol * abs(best) + atol if np.isfinite(best) else 0.0
            if value < best - margin:
                s.update(best=value, bad=0)
            else:
                s["bad"] += 1
            if s.get("rest", 0) > 0:
                s.update(rest=s["rest"] - 1, bad=0)
            if s["bad"] == patience:
                s.update(scale=max(factor * s.get("scale", 1.0), least), rest=cooldown, bad=0)
        return {n: p - rate * s.get("scale", 1.0) * gs[n] for n, p in ps.items()}

    return step


def stopping(rate, patience, rtol, keep_best=False, shown=False):
    """Where the metric was best; or, `shown`, the parameters, to which the stop adds a hundredth at each update."""

    @whole_tree
    def step(ps, gs, s, t):
        at = s.setdefault("p", ps)
        value = np.mean(np.concatenate([p.ravel() for p in at.values()]) ** 2) - 2
        if t == 1 or value < s["value"] - rtol * abs(s["value"]):
            s.update(value=value, best=at, bad=0)
        else:
            s["bad"] += 1
        s["stop"] = s.get("stop", False) or s["bad"] >= patience
        s["p"] = {n: p - rate * gs[n] + 0.01 * (shown and s["stop"]) for n, p in at.items()}
        return s["best"] if keep_best else s["p"]

    return step


def controlled(*args, metric=below_two, **kwargs):
    return feeding(gt.chain(gt.sgd(0.3), gt.reduce_on_plateau(*args, **kwargs)), metric)


def stopped(*args, **kwargs):
    return gt.chain(gt.sgd(0.3), gt.early_stopping(*args, **kwargs))


def whether_to_stop(state):
    return {"should_stop": state[1].should_stop}


def adaptive_ascent():
    size = gt.scale_by_param_magnitude(0.01)
    return gt.chain(size, gt.normalize(), size, gt.sgd(0.2))


CASES = [
    case(lambda: gt.lookahead(gt.sgd(0.3), 3, 0.5), lookahead(0.3, 3, 0.5)),
    case(lambda: gt.lookahead(gt.sgd(0.3), 1, 0.8), lookahead(0.3, 1, 0.8)),
    case(lambda: gt.lookahead(gt.sgd(0.3, momentum=0.6), 4, 0.8), lookahead(0.3, 4, 0.8, momentum=0.6)),
    case(
        lambda: gt.lookahead(gt.sgd(0.3, momentum=0.6), 4, 1.5, True),
        lookahead(0.3, 4, 1.5, momentum=0.6, reset=True),
    ),
    case(lambda: evaluated(gt.lookahead(gt.sgd(0.3), 3, 0.5)), lookahead(0.3, 3, 0.5, shown="slow")),
    case(lambda: gt.sam(gt.sgd(0.1), adaptive_ascent()), asam(0.1, 0.2, 0.01), name="asam"),
    case(lambda: gt.chain(gt.sam(gt.sgd(0.1), ascent()), gt.identity()), sam(0.1, 0.2, 2, shown="q")),
    case(lambda: gt.sam(gt.sgd(0.1), ascent(), alpha=0.3), gsam(0.1, 0.2, 2, 0.3)),
    case(lambda: gt.sam(gt.sgd(0.1), ascent(), 3, alpha=0.0), gsam(0.1, 0.2, 3, 0.0)),
    case(
        lambda: gt.sam(gt.sgd(0.1), ascent(), 3, alpha=gt.linear_schedule(0.4, 0.1, 50)),
        gsam(0.1, 0.2, 3, lambda t: max(0.4 - 0.3 * t / 50, 0.1)),
    ),
    case(
        lambda: feeding(gt.sam(gt.sgd(0.1), ascent(), 3, opaque_mode=True, alpha=0.3), with_gradients),
        opaque_gsam(0.1, 0.2, 3, 0.3),
        name="gsam in one call",
    ),
    case(lambda: gt.chain(gt.scale_by_param_magnitude(0.1), gt.sgd(0.2)), by_magnitude(0.2, 0.1)),
    case(lambda: controlled(0.5, 3, 1e-3), on_plateau(0.3, 0.5, 3, 1e-3), name="reduce_on_plateau"),
    case(
        lambda: controlled(0.7, 2, 0.02, 0.01, 4, 3, 0.2),
        on_plateau(0.3, 0.7, 2, 0.02, 0.01, 4, 3, 0.2),
        name="reduce_on_plateau of means",
    ),
    case(
        lambda: controlled(0.9, 5, mode="max"),
        on_plateau(0.3, 0.9, 5, 1e-4, sign=-1),
        name="reduce_on_plateau, the larger the better",
    ),
    case(
        lambda: controlled(0.7, 2, 0.05, metric=above_minus_two, mode="max"),
        on_plateau(0.3, 0.7, 2, 0.05),
        name="reduce_on_plateau, rising",
    ),
    case(
        lambda: controlled(0.7, 2, 0.0, 0.02),
        on_plateau(0.3, 0.7, 2, 0.0, 0.02),
        name="reduce_on_plateau, absolute",
    ),
    case(
        lambda: controlled(0.7, 1, 0.9, cooldown=2),
        on_plateau(0.3, 0.7, 1, 0.9, cooldown=2),
        name="reduce_on_plateau, again and again",
    ),
    case(
        lambda: evaluated(feeding(stopped(2, 0.05, keep_best=True), below_two)),
        stopping(0.3, 2, 0.05, keep_best=True),
        name="early_stopping, evaluated",
    ),
    case(
        lambda: feeding(showing(stopped(2, 0.05), whether_to_stop), below_two),
        stopping(0.3, 2, 0.05, shown=True),
        name="early_stopping",
    ),
]
