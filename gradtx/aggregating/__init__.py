# SPDX-License-Identifier: Apache-2.0
"""Aggregating: one update from the gradients of the single elements of a batch."""

from gradtx.aggregating._aggregate import accumulate_avg_updates as accumulate_avg_updates
from gradtx.aggregating._aggregate import aggregate as aggregate
from gradtx.aggregating._aggregate import average_incrementally_updates as average_incrementally_updates
from gradtx.aggregating._aggregate import average_per_element_updates as average_per_element_updates
from gradtx.aggregating._aggregate import get_batch_size_from_per_elt_updates as get_batch_size_from_per_elt_updates
from gradtx.aggregating._element_variance import add_mean_variance_to_opt as add_mean_variance_to_opt
from gradtx.aggregating._element_variance import (
    get_per_element_mean_and_sum_sq_diff_grads as get_per_element_mean_and_sum_sq_diff_grads,
)
from gradtx.aggregating._element_variance import (
    get_unbiased_mean_and_variance_ema as get_unbiased_mean_and_variance_ema,
)
from gradtx.aggregating._element_variance import (
    track_per_element_mean_and_variance_with_ema as track_per_element_mean_and_variance_with_ema,
)
from gradtx.transforms._per_example_clipping import per_example_global_norm_clip as per_example_global_norm_clip
from gradtx.transforms._per_example_clipping import per_example_layer_norm_clip as per_example_layer_norm_clip
