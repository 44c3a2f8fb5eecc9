# SPDX-License-Identifier: Apache-2.0
"""Gradients of single elements: the names of `optax.experimental.aggregating`."""

from gradtx.aggregating._aggregate import AccumulateAvgUpdatesState as AccumulateAvgUpdatesState
from gradtx.aggregating._aggregate import accumulate_avg_updates as accumulate_avg_updates
from gradtx.aggregating._aggregate import average_incrementally_updates as average_incrementally_updates
from gradtx.aggregating._aggregate import average_per_element_updates as average_per_element_updates
from gradtx.aggregating._aggregate import get_batch_size_from_per_elt_updates as get_batch_size_from_per_elt_updates
from gradtx.aggregating._element_variance import (
    PerElementMeanAndSumSqDiffGradsState as PerElementMeanAndSumSqDiffGradsState,
)
from gradtx.aggregating._element_variance import PerElementMeanAndVarianceEMAState as PerElementMeanAndVarianceEMAState
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
from gradtx.compat._spellings import AggregatedUpdates as AggregatedUpdates
from gradtx.compat._spellings import Aggregator as Aggregator
from gradtx.compat._spellings import AggregatorUpdateFn as AggregatorUpdateFn
from gradtx.compat._spellings import MaybeAxis as MaybeAxis
from gradtx.compat._spellings import PerElementUpdates as PerElementUpdates
from gradtx.compat._spellings import process as process
