# SPDX-License-Identifier: Apache-2.0
"""Microbatching: a function of a large batch, evaluated on a few examples at a time."""

from gradtx.microbatching._accumulators import AccumulationType as AccumulationType
from gradtx.microbatching._accumulators import Accumulator as Accumulator
from gradtx.microbatching._microbatch import micro_grad as micro_grad
from gradtx.microbatching._microbatch import micro_vmap as micro_vmap
from gradtx.microbatching._microbatch import microbatch as microbatch
from gradtx.microbatching._microbatch import reshape_batch_axis as reshape_batch_axis
