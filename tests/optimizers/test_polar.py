# SPDX-License-Identifier: Apache-2.0
"""Rules around the polar factor: what their formulas do not say, at zeros, ties and small ranks, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

RULES = {
    "normuon": gt.scale_by_normuon(eps=0.0, ns_eps=0.0),
    "normuon-longer": gt.scale_by_normuon(eps=0.0, ns_eps=0.0, axis="longer"),
    "adamuon": gt.scale_by_adamuon(eps=0.0, ns_eps=0.0),
    "namo": gt.scale_by_namo(eps=0.0, ns_eps=0.0),
    "polargrad": gt.scale_by_polargrad(),
    "aurora": gt.scale_by_aurora(),
    **{f"scion-{norm}": gt.scale_by_scion(norm=norm, ns_eps=0.0) for norm in ("spectral", "sign", "input", "output")},
    "dion": gt.scale_by_dion(rank=2, eps=0.0),
    "dion2": gt.scale_by_dion2(eps=0.0),
}


def random(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def steps(tx, gradients):
    params = {"w": jnp.zeros_like(gradients[0])}
    state = tx.init(params)
    for g in gradients:
        u, state = tx.update({"w": g}, state, params)
        yield np.asarray(u["w"]), state


@pytest.mark.parametrize("name", RULES)
def test_zeros_change_nothing_and_do_no_harm(name: str):
    g = random(3, 4)
    for i, (u, state) in enumerate(steps(RULES[name], [0 * g, 0 * g, g, g])):
        assert all(np.all(np.isfinite(x)) for x in [u, *jax.tree.leaves(state)])
        assert np.any(u) == (i >= 2)


@pytest.mark.parametrize("name", ["normuon", "adamuon", "namo", "scion-spectral", "scion-input", "scion-output"])
@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_the_size_of_gradients_does_not_matter(name: str, size: float):
    gradients = [random(3, 4), random(3, 4)[::-1]]
    for (u, _), (v, _) in zip(
        steps(RULES[name], gradients), steps(RULES[name], [size * g for g in gradients]), strict=True
    ):
        np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_rows_of_aurora_are_as_long_as_each_other(shape: tuple[int, int]):
    """The direction of Muon has long and short ones here."""
    g = random(*shape) * jnp.linspace(0.1, 3.0, 6).reshape((6, 1) if shape[0] == 6 else (1, 6))
    spread = {}
    for name, tx in (("muon", gt.scale_by_muon("exact")), ("aurora", gt.scale_by_aurora(rounds=5))):
        ((u, _),) = steps(tx, [g])
        lengths = np.linalg.norm(u, axis=np.argmin(shape))
        spread[name] = lengths.max() / lengths.min()
        np.testing.assert_allclose(np.linalg.svd(u, compute_uv=False), 1, rtol=0.02)
    assert spread["aurora"] < 1.2 < 2 < spread["muon"]


@pytest.mark.parametrize("shape", [(8, 4), (4, 8), (5, 5)])
def test_dion2_updates_the_largest_rows_of_the_shorter_side(shape: tuple[int, int]):
    g = random(*shape)
    rows, turned = (g.T, True) if shape[1] <= shape[0] else (g, False)
    ((u, state),) = steps(gt.scale_by_dion2(0.5, 0.3), [g])
    u, left = (u.T, state.mu["w"].T) if turned else (u, state.mu["w"])
    sizes = np.abs(np.asarray(rows)).sum(1)
    used = np.any(u != 0, axis=1)
    assert used.sum() == np.ceil(len(sizes) / 2) and sizes[used].min() > sizes[~used].max()
    np.testing.assert_allclose(left, np.where(used[:, None], 0.3, 1.0) * rows, rtol=1e-6)


def test_the_rank_of_dion_is_at_most_the_smaller_side():
    ((u, state),) = steps(gt.scale_by_dion(rank=5), [random(3, 6)])
    assert state.basis["w"].shape == (3, 3)
    np.testing.assert_allclose(np.sum(u**2), 3, rtol=1e-5)  # of full rank, with columns of norm 1


def test_dion_of_full_rank_and_no_memory_is_orthogonal_in_the_end():
    """Power iterations on one matrix find its singular vectors."""
    g = random(4, 3)
    *_, (u, _) = steps(gt.scale_by_dion(0.0, rank=3), [g] * 30)
    left, _, right = np.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(u, left @ right, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gt.dion(0.1, rank=5).init({"w": jnp.zeros((3, 4))}),
            r"scale_by_dion: .*rank must be at most 4 for a matrix \(3, 4\), got 5",
        ),
        (lambda: gt.scale_by_dion2(0.0), r"scale_by_dion2: fraction must be in \(0, 1\], got 0"),
        (
            lambda: gt.scale_by_normuon(axis="input"),
            r"normuon: axis must be one of \('output', 'longer'\), got 'input'",
        ),
        (lambda: gt.scion(0.1, norm="nuclear"), r"scion: norm must be one of \('auto', .*got 'nuclear'"),
        (lambda: gt.normuon(0.1, ns_coeffs="cubic"), "scale_by_normuon: ns_coeffs must be one of .*, got 'cubic'"),
        *((lambda tx=tx: tx.init({"b": jnp.zeros(3)}), "'?b'?") for n, tx in RULES.items() if n not in ("scion-sign",)),
    ],
)
def test_errors(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_fraction_is_a_python_number():
    with pytest.raises(TypeError, match=r"dion2: fraction must be a Python number in \(0, 1\], as sizes depend on it"):
        gt.dion2(0.1, jnp.asarray(0.5))
