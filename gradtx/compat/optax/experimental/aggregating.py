# SPDX-License-Identifier: Apache-2.0
"""Gradients of single elements: the names of `optax.experimental.aggregating`."""

from gradtx.compat.spellings import AggregatedUpdates as AggregatedUpdates
from gradtx.compat.spellings import Aggregator as Aggregator
from gradtx.compat.spellings import AggregatorUpdateFn as AggregatorUpdateFn
from gradtx.compat.spellings import MaybeAxis as MaybeAxis
from gradtx.compat.spellings import PerElementUpdates as PerElementUpdates
from gradtx.compat.spellings import process as process
from gradtx.wrappers.aggregating import AccumulateAvgUpdatesState as AccumulateAvgUpdatesState
from gradtx.wrappers.aggregating import accumulate_avg_updates as accumulate_avg_updates
from gradtx.wrappers.aggregating import average_incrementally_updates as average_incrementally_updates
from gradtx.wrappers.aggregating import average_per_element_updates as average_per_element_updates
from gradtx.wrappers.aggregating import get_batch_size_from_per_elt_updates as get_batch_size_from_per_elt_updates
from gradtx.wrappers.element_variance import (
    PerElementMeanAndSumSqDiffGradsState as PerElementMeanAndSumSqDiffGradsState,
)
from gradtx.wrappers.element_variance import PerElementMeanAndVarianceEMAState as PerElementMeanAndVarianceEMAState
from gradtx.wrappers.element_variance import add_mean_variance_to_opt as add_mean_variance_to_opt
from gradtx.wrappers.element_variance import (
    get_per_element_mean_and_sum_sq_diff_grads as get_per_element_mean_and_sum_sq_diff_grads,
)
from gradtx.wrappers.element_variance import get_unbiased_mean_and_variance_ema as get_unbiased_mean_and_variance_ema
from gradtx.wrappers.element_variance import (
    track_per_element_mean_and_variance_with_ema as track_per_element_mean_and_variance_with_ema,
)
