# SPDX-License-Identifier: Apache-2.0
"""The shared losses agree with optax 0.2.8 in float32: parameters, values and gradients."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import losses
from support.losses import CASES, Case, Masked

OTHER_SPELLINGS = {"convex_kl_divergence"}
"""Other names of losses, which gradtx has in gradtx.compat.optax only."""
PUBLIC = {n for n, x in vars(optax.losses).items() if callable(x) and not n.startswith("_")}
NAMES = sorted(PUBLIC - OTHER_SPELLINGS)


def differs(case: Case) -> bool:
    """Where optax is wrong, see tests/differences/test_losses.py."""
    return (case.name == "triplet_margin_loss" and case.kwargs.get("norm_degree", 2) % 2 == 1) or (
        case.kwargs.get("apply_sigmoid") is False or case.kwargs.get("apply_softmax") is False
    )


def is_shared(case: Case) -> bool:
    if case.name not in NAMES or differs(case):
        return False
    parameters = inspect.signature(getattr(optax.losses, case.name)).parameters
    return set(case.arrays) | set(case.kwargs) <= set(parameters)


SHARED = [c for c in CASES if is_shared(c)]


def masks(case: Case) -> list[Masked | None]:
    """None, and a mask of entries where optax has `where` and others are left."""
    if "where" not in inspect.signature(getattr(optax.losses, case.name)).parameters:
        return [None]
    return [None, *(m for m in case.masks if m.out is None)]


CALLS = [(c, m) for c in SHARED for m in masks(c)]


def test_all_names_are_there():
    assert len(PUBLIC) == 32
    assert {c.name for c in SHARED} == set(NAMES) - {"make_fenchel_young_loss"}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_begin_as_in_optax(name: str):
    def facts(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    ours, theirs = facts(getattr(losses, name)), facts(getattr(optax.losses, name))
    assert [p for p in ours if p[0] in {n for n, _, _ in theirs}] == theirs
    added = [p for p in ours if p[0] not in {n for n, _, _ in theirs}]
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in added)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(("case", "mask"), CALLS, ids=[f"{c}{', masked' if m else ''}" for c, m in CALLS])
def test_same_values_and_gradients(case: Case, mask: Masked | None):
    arrays = [jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else None) for x in case.arrays.values()]
    extra = {}
    if mask is not None:
        size = case.arrays[mask.arrays[0]].shape[mask.axis]
        shape = [1] * len(mask.shape)
        shape[mask.axis] = size
        counts = (np.arange(size) < size - mask.count).reshape(shape)
        extra["where"] = jnp.broadcast_to(jnp.asarray(counts), mask.shape)

    def theirs(*a):
        found = getattr(optax.losses, case.name)(**dict(zip(case.arrays, a, strict=True)), **case.kwargs, **extra)
        return found[0] if isinstance(found, tuple) else found

    def ours(*a):
        return case.call(*a, **extra)

    results = []
    for f in (ours, theirs):
        value, pullback = jax.vjp(lambda x, f=f: f(x, *arrays[1:]), arrays[0])
        weights = jnp.asarray(np.random.default_rng(0).normal(size=value.shape), value.dtype)
        results.append((value, pullback(weights)[0]))
    for found, expected in zip(*results, strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
