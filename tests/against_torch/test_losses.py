# SPDX-License-Identifier: Apache-2.0
"""Losses that torch.nn.functional has too: values and gradients in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import losses

torch = pytest.importorskip("torch")
F = torch.nn.functional

RNG = np.random.default_rng(0)
X, Y, Z = (RNG.normal(size=(4, 5)) for _ in range(3))
PROBABILITIES = RNG.dirichlet(np.ones(5), size=4)
LABELS = np.array([3, 0, 4, 1])
IGNORED = np.array([3, -100, 4, -100])
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
FRAMES = RNG.normal(size=(3, 7, 5))
WORDS = np.array([[1, 2, 2], [4, 4, 1], [3, 1, 0]])
LENGTHS, FRAME_LENGTHS = np.array([3, 3, 2]), np.array([7, 6, 5])


def padding(lengths, size):
    return (np.arange(size) >= lengths[:, None]).astype(float)


def torch_ctc(x):
    log_p = F.log_softmax(x, -1).transpose(0, 1)
    lengths = torch.tensor(FRAME_LENGTHS), torch.tensor(LENGTHS)
    return F.ctc_loss(log_p, torch.tensor(WORDS), *lengths, blank=0, reduction="none")


def tensors(*arrays):
    return [torch.tensor(a) for a in arrays]


Y_, Z_, P_, L_, I_, S_ = tensors(Y, Z, PROBABILITIES, LABELS, IGNORED, SIGNS)
integer = losses.softmax_cross_entropy_with_integer_labels
PAIRS = {
    "mse_loss": (lambda x: losses.squared_error(x, Y), lambda x: F.mse_loss(x, Y_, reduction="none")),
    "huber_loss": (
        lambda x: losses.huber_loss(x, Y, delta=0.4),
        lambda x: F.huber_loss(x, Y_, delta=0.4, reduction="none"),
    ),
    "cosine_similarity": (
        lambda x: losses.cosine_similarity(x, Y, epsilon=1e-16),
        lambda x: F.cosine_similarity(x, Y_, eps=1e-8),
    ),
    "cross_entropy": (lambda x: integer(x, LABELS), lambda x: F.cross_entropy(x, L_, reduction="none")),
    "cross_entropy, smoothed": (
        lambda x: integer(x, LABELS, label_smoothing=0.2),
        lambda x: F.cross_entropy(x, L_, reduction="none", label_smoothing=0.2),
    ),
    "cross_entropy, mean with ignored labels": (
        lambda x: losses.reduce_loss(integer(x, IGNORED, where=(IGNORED != -100)[:, None]), where=IGNORED != -100),
        lambda x: F.cross_entropy(x, I_),
    ),
    "cross_entropy, probabilities": (
        lambda x: losses.softmax_cross_entropy(x, PROBABILITIES, label_smoothing=0.1),
        lambda x: F.cross_entropy(x, P_, reduction="none", label_smoothing=0.1),
    ),
    "binary_cross_entropy_with_logits": (
        lambda x: losses.sigmoid_binary_cross_entropy(x, PROBABILITIES),
        lambda x: F.binary_cross_entropy_with_logits(x, P_, reduction="none"),
    ),
    "kl_div": (
        lambda x: losses.kl_divergence(x, PROBABILITIES),
        lambda x: F.kl_div(x, P_, reduction="none").sum(-1),
    ),
    "kl_div, logarithms": (
        lambda x: losses.kl_divergence_with_log_targets(x, Y),
        lambda x: F.kl_div(x, Y_, reduction="none", log_target=True).sum(-1),
    ),
    "poisson_nll_loss": (
        lambda x: losses.poisson_nll_loss(x, PROBABILITIES * 9, full=True),
        lambda x: F.poisson_nll_loss(x, P_ * 9, full=True, reduction="none"),
    ),
    "poisson_nll_loss, rates": (
        lambda x: losses.poisson_nll_loss(x * x, PROBABILITIES * 9, log_input=False, eps=0.1),
        lambda x: F.poisson_nll_loss(x * x, P_ * 9, log_input=False, eps=0.1, reduction="none"),
    ),
    "gaussian_nll_loss": (
        lambda x: losses.gaussian_nll_loss(x, Y, PROBABILITIES, full=True, eps=0.1),
        lambda x: F.gaussian_nll_loss(x, Y_, P_, full=True, eps=0.1, reduction="none"),
    ),
    "gaussian_nll_loss, of the variance": (
        lambda x: losses.gaussian_nll_loss(Z, Y, x * x, eps=0.1),
        lambda x: F.gaussian_nll_loss(Z_, Y_, x * x, eps=0.1, reduction="none"),
    ),
    "triplet_margin_loss": (
        lambda x: losses.triplet_margin_loss(x, Y, Z, margin=2.0, eps=0.0),
        lambda x: F.triplet_margin_loss(x, Y_, Z_, margin=2.0, eps=0.0, reduction="none"),
    ),
    "triplet_margin_loss, third powers": (
        lambda x: losses.triplet_margin_loss(x, Y, Z, margin=2.0, eps=0.0, norm_degree=3),
        lambda x: F.triplet_margin_loss(x, Y_, Z_, margin=2.0, p=3.0, eps=0.0, reduction="none"),
    ),
    "soft_margin_loss": (
        lambda x: losses.sigmoid_binary_cross_entropy(x[:, 0], (SIGNS + 1) / 2),
        lambda x: F.soft_margin_loss(x[:, 0], S_, reduction="none"),
    ),
    "margin_ranking_loss": (
        lambda x: losses.hinge_loss(x[:, 0], SIGNS),
        lambda x: F.margin_ranking_loss(x[:, 0], torch.zeros(4).double(), S_, margin=1.0, reduction="none"),
    ),
}


def agree(ours, theirs, x):
    given = torch.tensor(x, requires_grad=True)
    expected = theirs(given)
    weights = np.random.default_rng(1).normal(size=tuple(expected.shape))
    (expected * torch.tensor(weights)).sum().backward()
    value, pullback = jax.vjp(ours, jnp.asarray(x))
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(pullback(jnp.asarray(weights))[0], given.grad.numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_same_values_and_gradients(name: str, x64):
    agree(*PAIRS[name], X)


def test_ctc(x64):
    def ours(x):
        return losses.ctc_loss(x, padding(FRAME_LENGTHS, 7), WORDS, padding(LENGTHS, 3))

    agree(ours, torch_ctc, FRAMES)
