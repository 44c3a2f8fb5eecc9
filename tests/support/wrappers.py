# SPDX-License-Identifier: Apache-2.0
"""Every factory that takes a transformation, with an example of its call around any transformation."""

from collections.abc import Callable
from typing import Any

import gradtx
from gradtx.precision import bfloat16
from support import meshes
from support.registry import boxed, by_rank, every_second, only_matrices, unboxed

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "aggregate": lambda tx: gradtx.aggregating.aggregate(
        gradtx.clip(0.5), gradtx.aggregating.accumulate_avg_updates(2), tx
    ),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 2),
    "cautious": lambda tx: gradtx.cautious(tx, descent=True),
    "chain": lambda tx: gradtx.chain(gradtx.clip(0.5), tx),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, every_second),
    "conditionally_transform": lambda tx: gradtx.conditionally_transform(tx, every_second),
    "dynamic_loss_scale": lambda tx: gradtx.dynamic_loss_scale(tx, 1024.0, 2),
    "flatten": lambda tx: gradtx.flatten(tx),
    "graft": lambda tx: gradtx.graft(gradtx.sign_sgd(1.0), tx),
    "guard": lambda tx: gradtx.guard(tx, gradtx.skipping.norm_spike(4, warmup=2)),
    "lookahead": lambda tx: gradtx.lookahead(tx, 2, 0.8),
    "low_rank": lambda tx: gradtx.low_rank(tx, 1),
    "masked": lambda tx: gradtx.masked(tx, only_matrices),
    "mechanize": lambda tx: gradtx.mechanize(tx, s_init=0.1),
    "named_chain": lambda tx: gradtx.named_chain(("clip", gradtx.clip(0.5)), ("optimizer", tx)),
    "offload": lambda tx: gradtx.sharding.offload(tx),
    "orthograd": lambda tx: gradtx.orthograd(tx),
    "over_axes": lambda tx: gradtx.sharding.over_axes(tx, ()),
    "partition": lambda tx: gradtx.partition({"matrix": tx, "rest": gradtx.sgd(0.1)}, by_rank),
    "primal_averaging": lambda tx: gradtx.primal_averaging(tx),
    "record_metrics": lambda tx: gradtx.record_metrics(tx),
    "repack_state": lambda tx: gradtx.repack_state(tx, boxed, unboxed),
    "reset_every": lambda tx: gradtx.reset_every(tx, 2),
    "sam": lambda tx: gradtx.sam(tx, gradtx.chain(gradtx.normalize(), gradtx.sgd(0.05))),
    "schedule_free": lambda tx: gradtx.schedule_free(tx, 0.1),
    "split_real_and_imaginary": lambda tx: gradtx.split_real_and_imaginary(tx),
    "spread_matrices": lambda tx: gradtx.sharding.spread_matrices(tx, ()),
    "stored": lambda tx: gradtx.stored(tx, bfloat16(), min_size=0),
    "trac": lambda tx: gradtx.trac(tx, eps=0.1),
    "unstacked": lambda tx: gradtx.unstacked(tx),
    "with_gradient_signs": lambda tx: gradtx.with_gradient_signs(tx, descent=True),
    "with_master_params": lambda tx: gradtx.with_master_params(tx, gradtx.keep_master()),
    "with_roles": lambda tx: gradtx.with_roles((("**", gradtx.Role()),), tx),
    "zero": lambda tx: gradtx.sharding.zero(tx, "devices", mesh=meshes.mesh(devices=1)),
}
"""A call of each factory that takes a transformation and does not stand for other factories' calls."""
