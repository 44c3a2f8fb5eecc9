# SPDX-License-Identifier: Apache-2.0
"""Formulas of clipping to what gradients were before: AutoClip, ZClip, AdaGC, the parts of SPAM and Stable-SPAM."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx as gt
from gradtx.core._transformation import with_extra_args_support
from support.formulas import case, whole_tree

# The tools: gradients that spike, and a way to see what is published.


def spiking(params, t):
    """Normal numbers that shrink slowly. Some are large in three steps of 16; the kernel's are 0 at times."""
    rng = np.random.default_rng(t)
    g = {n: np.asarray(rng.normal(size=params[n].shape) * 0.99**t) for n in sorted(params)}
    if t % 16 in (6, 7, 10):
        g["matrix"] *= 50
        g["vector"][1] *= 200
    if t % 16 in (1, 2, 9):
        g["kernel"] *= 0
    return g


def overflowing(params, t):
    """`spiking`, infinite somewhere in three steps of 16."""
    g = spiking(params, t)
    if t % 16 in (4, 8, 9):
        g["matrix"][0, t % 3] = -np.inf if t % 2 else np.inf
    return g


@gt.transformation
def showing(inner: Any, read: Any = None) -> Any:
    """Adds to the updates what `inner` publishes, or `read(state)`: see `shown`."""
    tx = with_extra_args_support(inner)

    def update(g, state, params=None, **extra):
        u, state = tx.update(g, state, params, **extra)
        seen = gt.metrics(state) if read is None else read(state)
        numbers = [jnp.asarray(seen[n]).astype(float) for n in sorted(seen)]
        total = sum(0.01 * i * jnp.where(jnp.isfinite(x), x, 0) for i, x in enumerate(numbers, 1))
        return jax.tree.map(lambda u: u + total, u), state

    return gt.GradientTransformationExtraArgs(tx.init, update)


def shown(us, seen):
    """The updates and i hundredths of each number, i being its place by the names; what is not finite counts as 0."""
    total = sum(0.01 * i * float(seen[n]) for i, n in enumerate(sorted(seen), 1) if np.isfinite(seen[n]))
    return {n: u + total for n, u in us.items()}


def clipping(*stages):
    return gt.chain(showing(*stages), gt.scale_by_lr(0.1))


def descended(ps, us, **seen):
    return {n: ps[n] - 0.1 * u for n, u in shown(us, seen).items()}


def norm(gs):
    return np.sqrt(sum(np.sum(g**2) for g in gs.values()))


def shrunk(g, factor):
    return factor * g if factor > 0 else np.zeros_like(g)


# The formulas. Norms that are not finite count nowhere; what has one becomes 0.


def by_history(judge):
    """Clips the global norm n to `judge(n, s)`, which is 0 for none."""

    @whole_tree
    def step(ps, gs, s, t):
        n = norm(gs)
        limit = judge(n, s)
        over = limit > 0 and n > limit
        s["clipped"] = s.get("clipped", 0) + over
        factor = 0.0 if np.isinf(n) else limit / n if over else 1.0
        us = {k: shrunk(g, factor) for k, g in gs.items()}
        fraction = np.float32(s["clipped"]) / np.float32(t)  # int32 counts divide to float32 in JAX
        return descended(ps, us, grad_norm=n, threshold=limit, clip_factor=factor, clipped_fraction=fraction)

    return step


def autoclip(percentile, window):
    def judge(n, s):
        seen = s.setdefault("seen", [])
        if np.isfinite(n):
            seen.append(n)
        return np.percentile(seen[-window:], percentile) if seen else 0.0

    return by_history(judge)


def zclip(z_threshold, decay, warmup_steps, to):
    def judge(n, s):
        first = s.setdefault("first", [])
        if len(first) < warmup_steps:
            if np.isfinite(n):
                first.append(n)
                s.update(mu=np.mean(first), variance=np.var(first))
            return 0.0
        mu, sigma, new = s["mu"], np.sqrt(s["variance"]), n
        z, limit = (n - mu) / sigma, mu + sigma * z_threshold
        if z > z_threshold:
            heights = {"reciprocal": z_threshold * z_threshold / z, "threshold": z_threshold, "mean": 0.0}
            limit = new = mu + sigma * heights[to]
        if np.isfinite(n):
            s["mu"] = decay * mu + (1 - decay) * new
            s["variance"] = decay * s["variance"] + (1 - decay) * (new - s["mu"]) ** 2
        return limit

    return by_history(judge)


def clip_spikes(deviations, window, min_history, patience, statistic):
    def judge(n, s):
        kept, limit = s.setdefault("kept", []), np.inf
        if len(kept) >= min_history:
            last = np.array(kept[-window:])
            if statistic == "mean":
                limit = last.mean() + deviations * last.std()
            else:
                middle = np.median(last)
                limit = middle + deviations * 1.482602218505602 * np.median(np.abs(last - middle))
        s["in_a_row"] = s.get("in_a_row", 0) + 1 if n > limit else 0
        if np.isfinite(n) and (n <= limit or s["in_a_row"] > patience):
            kept.append(n)
        return limit if np.isfinite(limit) else 0.0

    return by_history(judge)


def adagc(lambda_rel=1.05, decay=0.98, warmup_steps=100, lambda_abs=1.0):
    """Algorithm 1 of the paper, with global clipping in the warm-up; a tensor without gamma is in it for longer."""

    @whole_tree
    def step(ps, gs, s, t):
        total, us, clipped = norm(gs), {}, 0
        for n, g in gs.items():
            size, gamma = np.linalg.norm(g), s.get(n)
            local = t > warmup_steps and gamma is not None
            own, limit = (size, lambda_rel * gamma) if local else (total, lambda_abs)
            clipped += own > limit
            us[n] = shrunk(g, limit / own if own > limit else 1.0)
            after = np.linalg.norm(us[n])
            if np.isfinite(own) and after > 0:
                s[n] = decay * gamma + (1 - decay) * after if local else min(gamma or np.inf, after)
        seen = {"grad_norm": total, "clip_factor": norm(us) / total, "clipped_fraction": clipped / len(gs)}
        return descended(ps, us, **seen)

    return step


def spam_clip(threshold, b2):
    @whole_tree
    def step(ps, gs, s, t):
        us, number = {}, 0
        for n, g in gs.items():
            v = s.get(n, np.zeros_like(g))
            spike = (v > 0) & (g**2 > threshold * v)
            us[n] = u = np.where(spike, np.sign(g) * np.sqrt(threshold * v), g)
            s[n] = b2 * v + (1 - b2) * u**2
            number += np.sum(spike)
        return descended(ps, us, clipped_fraction=number / sum(g.size for g in gs.values()))

    return step


def stable_spam_clip(g, s, decay):
    size = np.abs(g)
    largest = np.max(size)
    if np.isfinite(largest):
        s["n"] = s.get("n", 0) + 1
        s["M"] = decay * s.get("M", 0.0) + (1 - decay) * largest
    if "n" not in s:
        return g
    c = s["M"] / (1 - decay ** s["n"])
    relative = np.where(np.isinf(g), np.sign(g), np.where(np.isinf(g), 0.0, g) / max(largest, 1e-300))
    return np.where(size > c, c * relative, g)


def stabilized(g, s, b1=0.7, b2=0.9, eps=1e-8):
    n = np.linalg.norm(g)
    if np.isinf(n):
        return np.zeros_like(g)
    s["t"] = s.get("t", 0) + 1
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * n
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * n**2
    if n == 0:
        return g
    return g / n * (s["m"] / (1 - b1 ** s["t"])) / (np.sqrt(s["v"] / (1 - b2 ** s["t"])) + eps)


def stabilize_norm(*arguments):
    @whole_tree
    def step(ps, gs, s, t):
        us = {n: stabilized(g, s.setdefault(n, {}), *arguments) for n, g in gs.items()}
        return descended(ps, us, grad_norm=norm(gs), factor=norm(us) / norm(gs))

    return step


def adam(g, s, b1=0.9, b2=0.999, eps=1e-8):
    s["t"] = s.get("t", 0) + 1
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    return s["m"] / (1 - b1 ** s["t"]) / (np.sqrt(s["v"] / (1 - b2 ** s["t"])) + eps)


def stable_spam(every):
    """The algorithm put together, where only Adam starts anew."""

    def step(p, g, s, t):
        if t == 1:
            s.update(clip={}, stable={})
        if (t - 1) % every == 0:
            s["moments"] = {}
        g = stabilized(stable_spam_clip(g, s["clip"], 0.999), s["stable"])
        return p - 0.1 * adam(g, s["moments"])

    return step


def spam(every, threshold, b2):
    """The second moment that clips is Adam's."""

    def step(p, g, s, t):
        if (t - 1) % every == 0:
            s.clear()
        v = s.get("v", np.zeros_like(g))
        g = np.where((v > 0) & (g**2 > threshold * v), np.sign(g) * np.sqrt(threshold * v), g)
        return p - 0.1 * adam(g, s, b2=b2)

    return step


def history(make, formula, *arguments, gradient=spiking):
    return case(lambda: clipping(make(*arguments)), formula(*arguments), gradient=gradient)


def of_largest(decay, gradient=spiking):
    """Not with what is published: at the first step the largest element is the limit, but for rounding."""
    make = lambda: gt.chain(gt.stable_spam_clip(decay), gt.scale_by_lr(0.1))  # noqa: E731  # what a case takes
    return case(make, lambda p, g, s, t: p - 0.1 * stable_spam_clip(g, s, decay), gradient=gradient)


CASES = [
    history(gt.autoclip, autoclip, 10.0, 1000),
    history(gt.autoclip, autoclip, 90.0, 20, gradient=overflowing),
    history(gt.autoclip, autoclip, 50.0, 1),
    history(gt.autoclip, autoclip, 0.0, 7),
    history(gt.autoclip, autoclip, 100.0, 7),
    *[history(gt.zclip, zclip, 2.5, 0.97, 25, to) for to in ("reciprocal", "threshold", "mean")],
    *[history(gt.zclip, zclip, 1.0, 0.8, 5, to, gradient=overflowing) for to in ("reciprocal", "threshold", "mean")],
    *[history(gt.zclip, zclip, 1.5, 0.3, 3, to) for to in ("reciprocal", "threshold", "mean")],
    *[
        history(gt.clip_spikes, clip_spikes, *arguments, statistic, gradient=gradient)
        for statistic in ("mean", "median")
        for *arguments, gradient in (
            (6.0, 128, 16, 10, spiking),
            (2.0, 20, 5, 10, overflowing),
            (1.0, 9, 9, 1, spiking),
            (0.5, 4, 2, 0, overflowing),
        )
    ],
    history(gt.adagc, adagc),
    history(gt.adagc, adagc, 1.05, 0.98, 20, 1.0),
    history(gt.adagc, adagc, 1.5, 0.9, 3, 8.0, gradient=overflowing),
    history(gt.adagc, adagc, 2.0, 0.0, 1, 100.0, gradient=overflowing),
    history(gt.adagc, adagc, 1.2, 0.99, 50, 0.01),
    history(gt.spam_clip, spam_clip, 5000.0, 0.999),
    history(gt.spam_clip, spam_clip, 50.0, 0.9, gradient=overflowing),
    history(gt.spam_clip, spam_clip, 1.0, 0.5),
    of_largest(0.999),
    of_largest(0.9, gradient=overflowing),
    of_largest(0.0),
    history(gt.stabilize_norm, stabilize_norm, 0.7, 0.9, 1e-8),
    history(gt.stabilize_norm, stabilize_norm, 0.9, 0.99, 0.1, gradient=overflowing),
    history(gt.stabilize_norm, stabilize_norm, 0.0, 0.5, 0.0),
    case(
        lambda: gt.chain(
            gt.stable_spam_clip(),
            gt.stabilize_norm(),
            gt.reset_every(gt.scale_by_adam(), 5),
            gt.scale_by_lr(0.1),
        ),
        stable_spam(5),
        "Stable-SPAM",
        gradient=overflowing,
    ),
    case(
        lambda: gt.chain(
            gt.reset_every(gt.chain(gt.spam_clip(50.0, 0.99), gt.scale_by_adam(b2=0.99)), 5), gt.scale_by_lr(0.1)
        ),
        spam(5, 50.0, 0.99),
        "SPAM",
        gradient=spiking,
    ),
]
