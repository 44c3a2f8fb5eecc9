# SPDX-License-Identifier: Apache-2.0
"""Formulas of methods that average, climb or estimate: Schedule-Free, averages, SAM, Sophia, FTRL, DP-SGD.

The transformations at the top make visible, as the parameters of a run, what a rule does elsewhere: `evaluated` the
point of evaluation, `feeding` the extra arguments, `per_example` gradients of examples, `through_complex` complex ones.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx as gt
from gradtx.core._transformation import with_extra_args_support
from support.formulas import case, whole_tree

# The tools.


class Hidden(NamedTuple):
    inner: Any
    params: Any


@gt.transformation
def evaluated(inner: Any) -> Any:
    """Moves the parameters to the point of evaluation, where gradients are taken too; those of `inner` are hidden."""
    return _hiding(with_extra_args_support(inner), gt.eval_params)


def _hiding(tx, show):
    def init(params):
        return Hidden(tx.init(params), jax.tree.map(jnp.copy, params))

    def update(g, state, params=None, **extra):
        u, inner = tx.update(g, state.inner, state.params, **extra)
        hidden = gt.apply_updates(state.params, u)
        return jax.tree.map(jnp.subtract, show(inner, hidden), params), Hidden(inner, hidden)

    return gt.GradientTransformationExtraArgs(init, update)


@gt.transformation
def through_complex(inner: Any) -> Any:
    """Gives `inner` p = Re w + Im w as the complex w, which starts at p (1 + i) / 2, with the gradient g + 2 i g."""
    tx = with_extra_args_support(inner)

    def init(params):
        w = jax.tree.map(lambda p: jax.lax.complex(p / 2, p / 2), params)
        return Hidden(tx.init(w), w)

    def update(g, state, params=None, **extra):
        g = jax.tree.map(lambda g: jax.lax.complex(g, 2 * g), g)
        u, inner = tx.update(g, state.inner, state.params, sampled_grad=state.params)
        w = gt.apply_updates(state.params, u)
        return jax.tree.map(lambda w, p: jnp.real(w) + jnp.imag(w) - p, w, params), Hidden(inner, w)

    return gt.GradientTransformationExtraArgs(init, update)


@gt.transformation
def feeding(inner: Any, make: Any) -> Any:
    """Passes the extra arguments `make(params)` on."""
    tx = with_extra_args_support(inner)
    return gt.GradientTransformationExtraArgs(tx.init, lambda g, s, p=None, **extra: tx.update(g, s, p, **make(p)))


SIZES = np.array([1.0, 3.0, -0.5, 0.0])


@gt.transformation
def per_example(inner: Any) -> Any:
    """Makes gradients of four examples of each gradient."""
    tx = with_extra_args_support(inner)

    def update(g, state, params=None, **extra):
        stacked = jax.tree.map(lambda g: jnp.stack([g * size for size in SIZES]), g)
        return tx.update(stacked, state, params)

    return gt.GradientTransformationExtraArgs(tx.init, update)


def everything(params):
    return jnp.concatenate([jnp.ravel(params[n]) for n in sorted(params)])


def objective(params):
    """problems.value in JAX."""
    x = everything(params)
    return jnp.sum(x**2 / 2 + jnp.cos(2 * x) / 4) + 0.1 * jnp.sin(jnp.sum(x**2))


def hessian_times(ps, v):
    """The Hessian of problems.value, by hand, times a vector."""
    square = sum(np.sum(p**2) for p in ps.values())
    along = sum(np.sum(ps[n] * v[n]) for n in ps)
    return {
        n: (1 - np.cos(2 * p) + 0.2 * np.cos(square)) * v[n] - 0.4 * np.sin(square) * along * p for n, p in ps.items()
    }


def noise(key, ps, draw):
    """The numbers that a key gives the leaves of a tree, in the order of their names."""
    keys = dict(zip(sorted(ps), jax.random.split(key, len(ps)), strict=True))
    return {n: np.asarray(draw(keys[n], p.shape, jnp.float64)) for n, p in ps.items()}


# Schedule-Free and primal averaging. A direction is `d(g, p, s, t)`, with p the point whose decay it may contain.


def plain(g, y, s, t):
    return g


def decayed(decay):
    return lambda g, y, s, t: g + decay * y


def rms(b2, eps, decay=0.0):
    """Adam without momentum."""

    def direction(g, y, s, t):
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        decay_now = decay(t) if callable(decay) else decay
        return g / (np.sqrt(s["v"] / (1 - b2**t)) + eps) + decay_now * y

    return direction


def momentum_adam(b1, b2, eps, decay):
    def direction(g, y, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        return s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps) + decay * y

    return direction


def schedule_free(rate, direction=plain, b1=0.9, power=2.0, step_power=0.0, shown="y"):
    """`shown` is y or x; gradients are taken there. The rate and b1 may be functions of the step from 1."""

    def step(p, g, s, t):
        if t == 1:
            s.update(x=p, y=p, z=p, largest=0.0, total=0.0)
        lr, b = (h(t) if callable(h) else h for h in (rate, b1))
        s["z"] = s["z"] - lr * direction(g, s["y"], s, t)
        s["largest"] = max(s["largest"], lr)
        weight = t**step_power * s["largest"] ** power
        s["total"] += weight
        c = weight / s["total"] if s["total"] > 0 else 0.0
        s["x"] = (1 - c) * s["x"] + c * s["z"]
        s["y"] = b * s["x"] + (1 - b) * s["z"]
        return s[shown]

    return step


def primal_averaging(rate, direction=plain, mu_x=0.9967, mu_y=0.8, shown="y"):
    def step(p, g, s, t):
        if t == 1:
            s.update(x=p, y=p, z=p)
        mx, my = (h(t) if callable(h) else h for h in (mu_x, mu_y))
        s["z"] = s["z"] - rate * direction(g, s["z"], s, t)
        s["x"] = mx * s["x"] + (1 - mx) * s["z"]
        s["y"] = my * s["x"] + (1 - my) * s["z"]
        return s[shown]

    return step


def warm(peak, steps):
    return lambda t: peak * min(1.0, t / steps)


def falling(count):
    return 0.3 / (1 + as_float(count) / 10)


def from_zero(count):
    return 0.1 - 0.1 / (1 + as_float(count) / 3)


def rising(count):
    return 0.9 - 0.4 / (1 + as_float(count) / 10)


def as_float(t):
    """int32 counts divide to float32 in JAX, also when 64 bits are enabled."""
    return t.astype(float) if isinstance(t, jax.Array) else t


def at_step(schedule):
    """A schedule as a function of the step from 1."""
    return lambda t: schedule(t - 1)


# Averages of the parameters of a descent with a rate.


def params_ema(rate, decay, warmup=False, debias=False):
    def step(p, g, s, t):
        if t == 1:
            s.update(fast=p, ema=0.0 if debias else p, weight=0.0 if debias else 1.0)
        b = decay(t) if callable(decay) else decay
        b = min(b, (1 + t) / (10 + t)) if warmup else b
        s["fast"] = s["fast"] - rate * g
        s["ema"] = b * s["ema"] + (1 - b) * s["fast"]
        s["weight"] = b * s["weight"] + (1 - b)
        return s["ema"] / s["weight"]

    return step


def lawa(rate, window, every):
    def step(p, g, s, t):
        if t == 1:
            s.update(fast=p, snapshots=[])
        s["fast"] = s["fast"] - rate * g
        if t % every == 0:
            s["snapshots"].append(s["fast"])
        return np.mean(s["snapshots"][-window:], axis=0) if s["snapshots"] else s["fast"]

    return step


def asgd(rate, lambd, alpha, t0, decay, shown="p"):
    def step(p, g, s, t):
        if t == 1:
            s.update(p=p, ax=p)
        lr = rate(t) if callable(rate) else rate
        eta = lr / (1 + lambd * lr * (t - 1)) ** alpha
        g = g + decay * s["p"]
        s["p"] = (1 - lambd * eta) * s["p"] - eta * g
        s["ax"] = s["ax"] + (s["p"] - s["ax"]) / max(1.0, t - 1 - t0)
        return s[shown]

    return step


# Rules of their own.


def madgrad(rate, momentum=0.9, decay=0.0, eps=1e-6):
    def step(p, g, s, t):
        if t == 1:
            s.update(start=p, s=0.0, v=0.0)
        g = g + decay * p
        weight = ((rate(t) if callable(rate) else rate) + eps) * np.sqrt(t)
        s["s"] = s["s"] + weight * g
        s["v"] = s["v"] + weight * g**2
        z = s["start"] - s["s"] / (np.cbrt(s["v"]) + eps)
        return momentum * p + (1 - momentum) * z

    return step


def ftrl(rate=0.001, power=-0.5, initial=0.1, l1=0.0, l2=0.0, shrinkage=0.0, beta=0.0):
    def step(p, g, s, t):
        n = s.get("n", initial + np.zeros_like(p))
        s["n"] = n + g**2
        sigma = (s["n"] ** -power - n**-power) / rate
        s["z"] = s.get("z", 0.0) + g + 2 * shrinkage * p - sigma * p
        quadratic = (s["n"] ** -power + beta) / rate + 2 * l2
        return np.where(np.abs(s["z"]) > l1, (np.sign(s["z"]) * l1 - s["z"]) / quadratic, 0.0)

    return step


def delta_bar_delta(rate, kappa, phi, theta):
    def step(p, g, s, t):
        sign = np.sign(s.get("average", 0.0) * g)
        old = s.get("rate", rate)
        s["rate"] = np.where(sign > 0, old + kappa, np.where(sign < 0, old - phi * old, old))
        s["average"] = (1 - theta) * g + theta * s.get("average", 0.0)
        return p - s["rate"] * g

    return step


def norm(gs):
    return np.sqrt(sum(np.sum(g**2) for g in gs.values()))


def normalized(rate):
    @whole_tree
    def step(ps, gs, s, t):
        return {n: p - rate * gs[n] / norm(gs) for n, p in ps.items()}

    return step


def sam(rate, rho, period, *, ascent_momentum=0.0, keep=False, decay=0.0, shown="p"):
    """Every step is one of ascent or the step down; all is a round if `gradient` is given."""

    @whole_tree
    def step(ps, gs, s, t):
        q = s.get("q", ps)
        if (t - 1) % period == 0:
            s["p"] = q
            s["v"] = s.get("v", dict.fromkeys(q, 0.0)) if keep else dict.fromkeys(q, 0.0)
        if (t - 1) % period < period - 1:
            s["v"] = {n: ascent_momentum * s["v"][n] + g / norm(gs) for n, g in gs.items()}
            s["q"] = {n: q[n] + rho * s["v"][n] for n in q}
        else:
            s["q"] = s["p"] = {n: p - rate * (gs[n] + decay * p) for n, p in s["p"].items()}
        return s["q"] if shown == "q" else s["p"]

    return step


def opaque_sam(rate, rho, period, gradient):
    @whole_tree
    def step(ps, gs, s, t):
        q = ps
        for i in range(period - 1):
            q = {n: x + rho * gs[n] / norm(gs) for n, x in q.items()}
            gs = gradient(q, i)
        return {n: p - rate * gs[n] for n, p in ps.items()}

    return step


def other_gradient(params, i):
    return {n: (1 + 0.5 * i) * (p + 0.1) for n, p in params.items()}


def split(rate, direction):
    """Both parts by themselves: `direction(g, w, s, t)` for Re w with the gradient g, and for Im w with 2 g."""

    def step(p, g, s, t):
        if t == 1:
            s.update(parts=[p / 2, p / 2], slots=[{}, {}])
        gs = [g, 2 * g]
        s["parts"] = [w - rate * direction(x, w, m, t) for x, w, m in zip(gs, s["parts"], s["slots"], strict=True)]
        return s["parts"][0] + s["parts"][1]

    return step


def rms_of_decayed(g, w, s, t):
    g = g + 0.2 * w
    s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * g**2
    return g / np.sqrt(s["v"] / (1 - 0.9**t) + 0.1)


def gauss_newton(g, w, s, t):
    """sampled_grad is w itself."""
    return 3.0 * w**2


def private(rate, limit, multiplier, seed, momentum=0.0, nesterov=False):
    @whole_tree
    def step(ps, gs, s, t):
        key = s.get("key", jax.random.key(seed))
        s["key"], *keys = jax.random.split(key, len(ps) + 1)
        factors = [min(1.0, limit / max(abs(size) * norm(gs), 1e-300)) for size in SIZES]
        s.setdefault("v", dict.fromkeys(ps, 0.0))
        new = {}
        for (n, p), k in zip(sorted(ps.items()), keys, strict=True):
            total = sum(f * size * gs[n] for f, size in zip(factors, SIZES, strict=True))
            total = total + limit * multiplier * np.asarray(jax.random.normal(k, p.shape, jnp.float64))
            mean = total / len(SIZES)
            s["v"][n] = momentum * s["v"][n] + mean
            new[n] = p - rate * (momentum * s["v"][n] + mean if nesterov else s["v"][n])
        return new

    return step


def complex_noise(limit, multiplier, seed):
    """DP-SGD at rate 1 on w with gradients g + 2 i g of one example: each part gets the whole deviation."""

    @whole_tree
    def step(ps, gs, s, t):
        s["key"], *keys = jax.random.split(s.get("key", jax.random.key(seed)), len(ps) + 1)
        factor = min(1.0, limit / (np.sqrt(5) * norm(gs)))
        new = {}
        for (n, p), k in zip(sorted(ps.items()), keys, strict=True):
            unit = np.asarray(jax.random.normal(k, p.shape, jnp.complex128)) * np.sqrt(2)
            total = factor * gs[n] * (1 + 2j) + limit * multiplier * unit
            new[n] = p - 0.1 * (total.real + total.imag)
        return new

    return step


def first_axis(updates, params):
    return jax.tree.map(lambda g: g[None], updates)


def sophia(rate, estimate, b1=0.965, b2=0.99, eps=1e-8, decay=1e-4, gamma=0.01, limit=1.0, every=10, only=None):
    """`estimate(ps, gs, s)` is a tree like the parameters."""

    @whole_tree
    def step(ps, gs, s, t):
        h, m = (s.setdefault(k, dict.fromkeys(ps, 0.0)) for k in "hm")
        if (t - 1) % every == 0:
            new = estimate(ps, gs, s)
            h = s["h"] = {n: b2 * h[n] + (1 - b2) * new[n] for n in ps}
        m = s["m"] = {n: b1 * m[n] + (1 - b1) * gs[n] for n in ps}
        done = {}
        for n, p in ps.items():
            ratio = m[n] / np.maximum(gamma * h[n], eps)
            u = ratio if limit is None else np.clip(ratio, -limit, limit)
            done[n] = p - rate * (u + (decay * p if only is None or p.ndim in only else 0.0))
        return done

    return step


def hutchinson(seed=0, draw=jax.random.rademacher):
    def estimate(ps, gs, s):
        s["key"], used = jax.random.split(s.get("key", jax.random.PRNGKey(seed)))
        v = noise(used, ps, draw)
        hv = hessian_times(ps, v)
        return {n: v[n] * hv[n] for n in ps}

    return estimate


def bartlett(batch):
    return lambda ps, gs, s: {n: batch * (p + np.cos(p)) ** 2 for n, p in ps.items()}


def descends_by(estimate, rate):
    """The estimate itself as an update."""

    @whole_tree
    def step(ps, gs, s, t):
        new = estimate(ps, gs, s)
        return {n: p - rate * new[n] for n, p in ps.items()}

    return step


def with_objective(params):
    return {"obj_fn": objective}


def with_samples(params):
    return {"sampled_grad": jax.tree.map(lambda p: p + jnp.cos(p), params)}


def with_sampler(params):
    return {"sampled_grad": lambda at: jax.tree.map(lambda p: p + jnp.cos(p), at)}


def with_gradients(params):
    return {"grad_fn": other_gradient}


def matrices(params):
    return {n: p.ndim == 2 for n, p in params.items()}


def ascent(**kwargs):
    return gt.chain(gt.normalize(), gt.sgd(0.2, **kwargs))


CASES = [
    case(lambda: gt.schedule_free(gt.sgd(0.3), 0.3), schedule_free(0.3)),
    case(lambda: evaluated(gt.schedule_free(gt.sgd(0.3), 0.3)), schedule_free(0.3, shown="x")),
    case(lambda: gt.schedule_free(gt.sgd(0.3), 0.3, 1.0), schedule_free(0.3, b1=1.0)),
    case(
        lambda: gt.chain(gt.sgd(falling), gt.schedule_free_averaging(falling, 0.7, 1.5)),
        schedule_free(at_step(falling), b1=0.7, power=1.5),
        "schedule_free as a stage",
    ),
    case(
        lambda: evaluated(gt.chain(gt.sgd(0.3), gt.schedule_free_averaging(0.3, 0.7))),
        schedule_free(0.3, b1=0.7, shown="x"),
        "schedule_free as a stage, evaluated",
    ),
    case(
        lambda: gt.schedule_free(gt.sgd(from_zero), from_zero, rising, weight_step_power=1.5),
        schedule_free(at_step(from_zero), b1=at_step(rising), step_power=1.5),
        "schedule_free, all scheduled",
    ),
    case(
        lambda: evaluated(gt.schedule_free(gt.sgd(falling), falling, rising)),
        schedule_free(at_step(falling), b1=at_step(rising), shown="x"),
        "schedule_free, all scheduled, evaluated",
    ),
    case(lambda: gt.schedule_free_sgd(0.3), schedule_free(0.3)),
    case(
        lambda: gt.schedule_free_sgd(0.3, 7, 0.8, 0.1, 1.0, weight_step_power=0.5),
        schedule_free(warm(0.3, 7), decayed(0.1), b1=0.8, power=1.0, step_power=0.5),
    ),
    case(
        lambda: gt.schedule_free_adamw(0.02, 7, 0.8, 0.9, 1e-3, 0.1, 1.5, weight_step_power=0.5),
        schedule_free(warm(0.02, 7), rms(0.9, 1e-3, 0.1), b1=0.8, power=1.5, step_power=0.5),
    ),
    case(
        lambda: gt.schedule_free_adamw(0.02, b2=0.9, eps=1e-3, weight_decay=5.0, corrected_decay=True),
        schedule_free(0.02, rms(0.9, 1e-3, 5.0 * 0.02)),
    ),
    case(
        lambda: gt.schedule_free_adamw(falling, 7, b2=0.9, eps=1e-3, weight_decay=falling, corrected_decay=True),
        schedule_free(
            lambda t: falling(t - 1) * min(1.0, t / 7),
            rms(0.9, 1e-3, lambda t: falling(t - 1) ** 2 * min(1.0, t / 7)),
        ),
        "schedule_free_adamw, all scheduled, with a corrected decay",
    ),
    case(lambda: gt.primal_averaging(gt.sgd(0.3)), primal_averaging(0.3)),
    case(
        lambda: gt.primal_averaging(gt.chain(gt.add_decayed_weights(0.1), gt.sgd(0.3)), 0.8, 0.6),
        primal_averaging(0.3, decayed(0.1), 0.8, 0.6),
    ),
    case(
        lambda: evaluated(gt.primal_averaging(gt.sgd(0.3), rising, rising)),
        primal_averaging(0.3, plain, at_step(rising), at_step(rising), shown="x"),
        "primal_averaging, scheduled and evaluated",
    ),
    case(
        lambda: gt.gpa_adamw(0.02, 0.95, 0.7, 0.8, 0.9, 1e-3, 0.1),
        primal_averaging(0.02, momentum_adam(0.8, 0.9, 1e-3, 0.1), 0.95, 0.7),
    ),
    case(lambda: evaluated(gt.chain(gt.sgd(0.1), gt.params_ema(0.8))), params_ema(0.1, 0.8)),
    case(lambda: evaluated(gt.chain(gt.sgd(0.1), gt.params_ema(0.8, debias=True))), params_ema(0.1, 0.8, debias=True)),
    case(lambda: evaluated(gt.chain(gt.sgd(0.1), gt.params_ema(0.6, warmup=True))), params_ema(0.1, 0.6, warmup=True)),
    case(
        lambda: evaluated(gt.chain(gt.sgd(0.1), gt.params_ema(rising, debias=True))),
        params_ema(0.1, at_step(rising), debias=True),
        "params_ema, scheduled",
    ),
    case(lambda: evaluated(gt.chain(gt.sgd(0.1), gt.lawa(4))), lawa(0.1, 4, 1)),
    case(lambda: evaluated(gt.chain(gt.sgd(0.1), gt.lawa(3, 2))), lawa(0.1, 3, 2)),
    case(lambda: gt.asgd(0.3, 0.1, 0.6, 5.0, 0.2), asgd(0.3, 0.1, 0.6, 5.0, 0.2)),
    case(lambda: evaluated(gt.asgd(0.3, 0.1, 0.6, 5.0, 0.2)), asgd(0.3, 0.1, 0.6, 5.0, 0.2, shown="ax")),
    case(lambda: gt.asgd(falling), asgd(at_step(falling), 1e-4, 0.75, 1e6, 0.0), "asgd, scheduled"),
    case(lambda: gt.madgrad(0.1), madgrad(0.1)),
    case(lambda: gt.madgrad(0.1, 0.7, 0.1, 1e-3), madgrad(0.1, 0.7, 0.1, 1e-3)),
    case(lambda: gt.madgrad(falling, 0.0), madgrad(at_step(falling), 0.0), "madgrad, scheduled, without momentum"),
    case(lambda: gt.ftrl(0.1), ftrl(0.1)),
    case(lambda: gt.ftrl(0.3, -0.7, 0.2, 0.3, 0.4, 0.5, 0.6), ftrl(0.3, -0.7, 0.2, 0.3, 0.4, 0.5, 0.6)),
    case(lambda: gt.ftrl(0.3, 0.0, 0.2), ftrl(0.3, 0.0, 0.2)),
    case(lambda: gt.delta_bar_delta(0.02, 0.003, 0.2, 0.6), delta_bar_delta(0.02, 0.003, 0.2, 0.6)),
    case(
        lambda: gt.chain(gt.scale_by_delta_bar_delta(0.05, 0.01, 0.3), gt.scale(-1.0)),
        delta_bar_delta(0.05, 0.01, 0.3, 0.7),
    ),
    case(lambda: gt.chain(gt.normalize(), gt.sgd(0.1)), normalized(0.1)),
    case(lambda: gt.sam(gt.sgd(0.1), ascent()), sam(0.1, 0.2, 2, shown="q")),
    case(
        lambda: gt.sam(gt.chain(gt.add_decayed_weights(0.3), gt.sgd(0.1)), ascent(momentum=0.5), 3),
        sam(0.1, 0.2, 3, ascent_momentum=0.5, decay=0.3, shown="q"),
    ),
    case(
        lambda: gt.sam(gt.sgd(0.1), ascent(momentum=0.5), 3, False),
        sam(0.1, 0.2, 3, ascent_momentum=0.5, keep=True, shown="q"),
    ),
    case(lambda: evaluated(gt.sam(gt.sgd(0.1), ascent(), 3)), sam(0.1, 0.2, 3)),
    case(
        lambda: feeding(gt.sam(gt.sgd(0.1), ascent(), 4, opaque_mode=True), with_gradients),
        opaque_sam(0.1, 0.2, 4, other_gradient),
    ),
    case(
        lambda: through_complex(
            gt.split_real_and_imaginary(
                gt.chain(gt.add_decayed_weights(0.2), gt.rmsprop(0.03, eps=0.1, bias_correction=True))
            )
        ),
        split(0.03, rms_of_decayed),
    ),
    case(
        lambda: through_complex(
            gt.split_real_and_imaginary(gt.chain(gt.curvature.gauss_newton_bartlett(3.0), gt.scale(-0.001)))
        ),
        split(0.001, gauss_newton),
    ),
    case(lambda: per_example(gt.dpsgd(0.1, 0.7, 0.5, 3)), private(0.1, 0.7, 0.5, 3)),
    case(
        lambda: per_example(gt.dpsgd(0.1, 0.7, 0.5, 3, 0.8, True)),
        private(0.1, 0.7, 0.5, 3, momentum=0.8, nesterov=True),
    ),
    case(
        lambda: through_complex(
            gt.chain(gt.stateless(first_axis), gt.differentially_private_aggregate(0.7, 0.5, 4), gt.scale(-0.1))
        ),
        complex_noise(0.7, 0.5, 4),
    ),
    case(
        lambda: feeding(gt.sophia(0.01, gamma=3.0, update_interval=3), with_objective),
        sophia(0.01, hutchinson(), gamma=3.0, every=3),
    ),
    case(
        lambda: feeding(
            gt.sophia(
                0.01,
                0.8,
                0.9,
                0.02,
                0.1,
                matrices,
                2.0,
                0.7,
                4,
                gt.curvature.hutchinson_estimator_diag_hessian(7, probes="normal"),
            ),
            with_objective,
        ),
        sophia(0.01, hutchinson(7, jax.random.normal), 0.8, 0.9, 0.02, 0.1, 2.0, 0.7, 4, only=(2,)),
    ),
    case(
        lambda: feeding(gt.sophia_g(0.01, 5.0, 0.8, 0.9, 0.3, 0.1, matrices, 2.0, 0.7, 4), with_samples),
        sophia(0.01, bartlett(5.0), 0.8, 0.9, 0.3, 0.1, 2.0, 0.7, 4, only=(2,)),
    ),
    case(
        lambda: feeding(gt.sophia_g(0.01, 5.0, eps=0.3, clip_threshold=None), with_sampler),
        sophia(0.01, bartlett(5.0), eps=0.3, gamma=0.05, limit=None),
    ),
    case(
        lambda: feeding(gt.chain(gt.curvature.hutchinson_estimator_diag_hessian(), gt.scale(-0.002)), with_objective),
        descends_by(hutchinson(), 0.002),
    ),
]
