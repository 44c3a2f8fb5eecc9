# SPDX-License-Identifier: Apache-2.0
"""Losses of sequences, and reductions."""

import itertools

import numpy as np

from support.losses.case import Masked, case, fractions, normal, softmax

FRAMES = {
    "logits": normal(3, 5, 4),
    "logit_paddings": np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]]),
    "labels": np.array([[1, 2], [3, 3], [2, 0]]),
    "label_paddings": np.array([[0, 0], [0, 0], [0, 1]]),
}


def readings(blank):
    """By adding up the probabilities of all sequences of classes that read as the labels."""

    def formula(x, frame_paddings, labels, label_paddings):
        losses = []
        for i in range(len(x)):
            p = softmax(x[i, : int((frame_paddings[i] == 0).sum())])
            wanted = [int(y) for y, padding in zip(labels[i], label_paddings[i], strict=True) if not padding]
            total = 0.0
            for path in itertools.product(range(p.shape[1]), repeat=len(p)):
                merged = [c for t, c in enumerate(path) if t == 0 or c != path[t - 1]]
                if [c for c in merged if c != blank] == wanted:
                    total += np.prod([p[t, c] for t, c in enumerate(path)])
            losses.append(-np.log(total))
        return np.array(losses)

    return formula


case("ctc_loss", FRAMES, readings(0))
case("ctc_loss", FRAMES | {"labels": np.array([[1, 2], [0, 0], [2, 3]])}, readings(3), blank_id=3)
case("ctc_loss_with_forward_probs", FRAMES, readings(0))

LOSSES = {"losses": normal(3, 4)}
case("reduce_loss", LOSSES, np.mean, Masked(1, (1, 4), ("losses",)))
case("reduce_loss", LOSSES, lambda x: x.sum(0), Masked(0, (3, 4), ("losses",)), reduction="sum", axis=0)
case(
    "reduce_loss",
    LOSSES | {"weights": fractions(3, 4)},
    lambda x, w: (x * w).sum(1) / w.sum(1),
    Masked(1, (1, 4), ("losses", "weights")),
    axis=1,
)
case(
    "reduce_loss",
    LOSSES | {"weights": fractions(3, 4)},
    lambda x, w: x * w,
    Masked(1, (1, 4), ("losses", "weights"), out=1),
    reduction="none",
)
