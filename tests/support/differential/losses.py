# SPDX-License-Identifier: Apache-2.0
"""Cases of losses: random logits, labels and masks, a strategy for each kind of loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from support.differential import Case, Draw, array, called, dtypes, fractions, integers, mask, numbers

TABLES = st.sampled_from([(3,), (2, 3), (2, 1, 3), (4, 2)])
BATCHES = TABLES.filter(lambda shape: len(shape) == 2)
Arguments = Callable[[Draw], dict[str, Any]]


def loss(name: str, kind: Arguments, *, axes: bool = False, where: str = "", **options: st.SearchStrategy) -> Case:
    """A case with the arrays of a kind, an axis and a mask if both libraries take one, and options."""

    def case(draw: Draw) -> Any:
        given = kind(draw)
        first = next(iter(given.values()))
        if axes:
            given["axis"] = draw(st.integers(-first.ndim, first.ndim - 1))
        if where:
            given["where"] = mask(draw, first.shape, given.get("axis", -1))
        return called(name, given | {n: draw(s) for n, s in options.items()})

    return case


def of_numbers(draw: Draw) -> dict[str, Any]:
    shape, dtype = draw(TABLES), draw(dtypes)
    return {"predictions": array(draw, shape, dtype), "targets": array(draw, shape, dtype)}


def of_vectors(draw: Draw) -> dict[str, Any]:
    """Not zero: there optax's cosine is 0/0."""
    shape, dtype = draw(TABLES), draw(dtypes)
    return {n: array(draw, shape, dtype, ties=False) for n in ("predictions", "targets")}


def of_logits(draw: Draw) -> dict[str, Any]:
    shape, dtype = draw(TABLES), draw(dtypes)
    return {"logits": array(draw, shape, dtype), "labels": fractions(draw, shape, dtype)}


def of_signs(draw: Draw) -> dict[str, Any]:
    shape, dtype = draw(TABLES), draw(dtypes)
    signs = 2 * integers(draw, shape, 0, 2) - 1
    return {"predictor_outputs": array(draw, shape, dtype), "targets": jnp.asarray(signs, dtype)}


def of_bits(draw: Draw) -> dict[str, Any]:
    shape = draw(TABLES)
    return {"logits": array(draw, shape), "labels": integers(draw, shape, 0, 2)}


def of_classes(inputs: str, tables: st.SearchStrategy = TABLES) -> Arguments:
    def kind(draw: Draw) -> dict[str, Any]:
        shape, dtype = draw(tables), draw(dtypes) if inputs == "logits" else np.float32
        return {inputs: array(draw, shape, dtype), "labels": integers(draw, shape[:-1], 0, shape[-1])}

    return kind


def of_densities(targets: str) -> Arguments:
    def kind(draw: Draw) -> dict[str, Any]:
        shape, dtype = draw(TABLES), draw(dtypes)
        logs = array(draw, shape, dtype, ties=False)
        second = fractions(draw, shape, dtype)
        return {"log_predictions": logs, targets: jnp.log(second) if targets == "log_targets" else second}

    return kind


def of_lists(draw: Draw) -> dict[str, Any]:
    shape = draw(TABLES)
    weights = fractions(draw, shape) if draw(st.booleans()) else None
    labels = jnp.asarray(integers(draw, shape, 0, 4), jnp.float32)
    return {"logits": array(draw, shape), "labels": labels, "weights": weights}


def of_triplets(draw: Draw) -> dict[str, Any]:
    shape, dtype = draw(TABLES), draw(dtypes)
    return {n: array(draw, shape, dtype) for n in ("anchors", "positives", "negatives")}


def of_embeddings(draw: Draw) -> dict[str, Any]:
    """With at least one pair of one label: without, there is no mean."""
    labels = np.array(integers(draw, (4,), 0, 3))
    labels[1] = labels[0]
    return {"embeddings": array(draw, (4, 3), ties=False), "labels": jnp.asarray(labels)}


def of_pixels(draw: Draw) -> dict[str, Any]:
    """Every class occurs: what a class weighs that does not is nobody's formula."""
    classes = np.array(integers(draw, (2, 4, 1), 0, 2))
    classes.ravel()[:2] = 0, 1
    logits, targets = array(draw, (2, 4, 1, 2)), jax.nn.one_hot(classes, 2)
    return {"predictions": logits, "targets": targets}


def of_regions(draw: Draw) -> dict[str, Any]:
    """Region losses of classes: a batch, rows, columns, classes; probabilities, which are logits as well."""
    logits = jax.nn.softmax(array(draw, (2, 3, 2, 3)))
    targets = jax.nn.one_hot(integers(draw, (2, 3, 2), 0, 3), 3)
    weights = jnp.asarray([1.0, 2.0, 0.5]) if draw(st.booleans()) else None
    return {"predictions": logits, "targets": targets, "class_weights": weights}


def of_shapes(draw: Draw) -> dict[str, Any]:
    return {"predictions": array(draw, (2, 3, 1)), "targets": integers(draw, (2, 3, 1), 0, 2).astype(jnp.float32)}


def of_frames(draw: Draw) -> dict[str, Any]:
    """Sequences for CTC, long enough for their labels."""
    frames, labels = np.array([5, 4, 5]), np.array(integers(draw, (3,), 0, 3))
    return {
        "logits": array(draw, (3, 5, 4), ties=False),
        "logit_paddings": jnp.asarray(np.arange(5) >= frames[:, None], jnp.float32),
        "labels": integers(draw, (3, 2), 1, 4),
        "label_paddings": jnp.asarray(np.arange(2) >= labels[:, None], jnp.float32),
    }


def forward_probabilities(draw: Draw) -> Any:
    """Up to the last label of each sequence; what comes after stands for nothing."""
    given = of_frames(draw)
    lengths = jnp.sum(given["label_paddings"] == 0, axis=1)[:, None]

    def run(library: Any) -> Any:
        losses, blanks, labels = library.ctc_loss_with_forward_probs(**given)
        return losses, jnp.where(jnp.arange(3) <= lengths, blanks, 0), jnp.where(jnp.arange(2) < lengths, labels, 0)

    return run


def labeled(draw: Draw) -> dict[str, Any]:
    shape = draw(TABLES)
    return {"labels": fractions(draw, shape)}


def fenchel_young(draw: Draw) -> Any:
    shape, axis = draw(TABLES), -1
    scores, targets, shift = array(draw, shape), fractions(draw, shape), draw(numbers(-1, 1))

    def run(lib: Any) -> Any:
        found = lib.losses.make_fenchel_young_loss(lambda x: jax.nn.logsumexp(x, axis=axis) + shift)
        flat, flat_targets = scores.reshape(-1), targets.reshape(-1)
        return found(flat, flat_targets)

    return run


small, unit = numbers(0.01, 1), numbers(0, 1)
flags = st.booleans()
CASES: dict[str, Case] = {
    "squared_error": loss("squared_error", of_numbers),
    "l2_loss": loss("l2_loss", of_numbers),
    "log_cosh": loss("log_cosh", of_numbers),
    "huber_loss": loss("huber_loss", of_numbers, delta=small),
    "cosine_similarity": loss("cosine_similarity", of_vectors, axes=True, where="where", epsilon=unit),
    "cosine_distance": loss("cosine_distance", of_vectors, axes=True, where="where", epsilon=unit),
    "sigmoid_binary_cross_entropy": loss("sigmoid_binary_cross_entropy", of_logits),
    "sigmoid_focal_loss": loss(
        "sigmoid_focal_loss", of_logits, alpha=st.none() | unit, gamma=st.sampled_from([0.5, 1.0, 2.0])
    ),
    "softmax_cross_entropy": loss("softmax_cross_entropy", of_logits, axes=True, where="where"),
    "safe_softmax_cross_entropy": loss("safe_softmax_cross_entropy", of_logits),
    "poly_loss_cross_entropy": loss(
        "losses.poly_loss_cross_entropy", of_logits, axes=True, where="where", epsilon=unit
    ),
    "softmax_cross_entropy_with_integer_labels": loss(
        "softmax_cross_entropy_with_integer_labels", of_classes("logits")
    ),
    "smooth_labels": loss("smooth_labels", labeled, axes=True, alpha=unit),
    "hinge_loss": loss("hinge_loss", of_signs),
    "losses.perceptron_loss": loss("losses.perceptron_loss", of_signs),
    "losses.sparsemax_loss": loss("losses.sparsemax_loss", of_bits),
    "losses.multiclass_hinge_loss": loss("losses.multiclass_hinge_loss", of_classes("scores")),
    "losses.multiclass_perceptron_loss": loss("losses.multiclass_perceptron_loss", of_classes("scores")),
    "losses.multiclass_sparsemax_loss": loss("losses.multiclass_sparsemax_loss", of_classes("scores", BATCHES)),
    "kl_divergence": loss("kl_divergence", of_densities("targets"), axes=True, where="where"),
    "convex_kl_divergence": loss("convex_kl_divergence", of_densities("targets"), axes=True, where="where"),
    "generalized_kl_divergence": loss("generalized_kl_divergence", of_densities("targets"), axes=True, where="where"),
    "losses.kl_divergence_with_log_targets": loss(
        "losses.kl_divergence_with_log_targets", of_densities("log_targets"), axes=True, where="where"
    ),
    "losses.ranking_softmax_loss": loss(
        "losses.ranking_softmax_loss", of_lists, where="where", reduce_fn=st.sampled_from([jnp.mean, jnp.sum, None])
    ),
    "losses.triplet_margin_loss": loss(
        "losses.triplet_margin_loss",
        of_triplets,
        axes=True,
        norm_degree=st.sampled_from([2, 4]),
        margin=unit,
        eps=small,
    ),
    "ntxent": loss("ntxent", of_embeddings, temperature=small),
    "ctc_loss": loss("ctc_loss", of_frames),
    "ctc_loss_with_forward_probs": forward_probabilities,
    "losses.dice_loss": loss(
        "losses.dice_loss",
        of_regions,
        smooth=small,
        alpha=unit,
        beta=unit,
        apply_softmax=flags,
        reduction=st.sampled_from(["mean", "sum", "none"]),
        ignore_background=flags,
        axis=st.sampled_from([None, (1, 2), (0, 1, 2)]),
    ),
    "losses.multiclass_generalized_dice_loss": loss(
        "losses.multiclass_generalized_dice_loss", of_pixels, smooth=small, ignore_background=flags
    ),
    "losses.binary_dice_loss": loss("losses.binary_dice_loss", of_shapes, smooth=small),
    "losses.make_fenchel_young_loss": fenchel_young,
}
CASES["losses.poly_loss_cross_entropy"] = CASES.pop("poly_loss_cross_entropy")
