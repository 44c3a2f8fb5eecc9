# SPDX-License-Identifier: Apache-2.0
"""Transformations of transformations."""

from gradtx.wrappers.accumulation import AccumulatingTransformation as AccumulatingTransformation
from gradtx.wrappers.accumulation import MicroStepsState as MicroStepsState
from gradtx.wrappers.accumulation import MultiSteps as MultiSteps
from gradtx.wrappers.accumulation import MultiStepsState as MultiStepsState
from gradtx.wrappers.accumulation import skip_large_updates as skip_large_updates
from gradtx.wrappers.accumulation import skip_not_finite as skip_not_finite
from gradtx.wrappers.aggregating import AccumulateAvgUpdatesState as AccumulateAvgUpdatesState
from gradtx.wrappers.aggregating import accumulate_avg_updates as accumulate_avg_updates
from gradtx.wrappers.aggregating import aggregate as aggregate
from gradtx.wrappers.aggregating import average_incrementally_updates as average_incrementally_updates
from gradtx.wrappers.aggregating import average_per_element_updates as average_per_element_updates
from gradtx.wrappers.aggregating import get_batch_size_from_per_elt_updates as get_batch_size_from_per_elt_updates
from gradtx.wrappers.conditional import ConditionallyMaskState as ConditionallyMaskState
from gradtx.wrappers.conditional import ConditionallyTransformState as ConditionallyTransformState
from gradtx.wrappers.conditional import conditionally_mask as conditionally_mask
from gradtx.wrappers.conditional import conditionally_transform as conditionally_transform
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
from gradtx.wrappers.finite import ApplyIfFiniteState as ApplyIfFiniteState
from gradtx.wrappers.finite import apply_if_finite as apply_if_finite
from gradtx.wrappers.flattening import FlattenState as FlattenState
from gradtx.wrappers.flattening import flatten as flatten
from gradtx.wrappers.freezing import freeze as freeze
from gradtx.wrappers.freezing import join_frozen as join_frozen
from gradtx.wrappers.freezing import selective_transform as selective_transform
from gradtx.wrappers.freezing import split_frozen as split_frozen
from gradtx.wrappers.grafting import GraftState as GraftState
from gradtx.wrappers.grafting import graft as graft
from gradtx.wrappers.guard import GuardState as GuardState
from gradtx.wrappers.guard import guard as guard
from gradtx.wrappers.guard_rules import GuardedStep as GuardedStep
from gradtx.wrappers.guard_rules import GuardRule as GuardRule
from gradtx.wrappers.guard_rules import SkipReason as SkipReason
from gradtx.wrappers.guard_rules import guard_rule as guard_rule
from gradtx.wrappers.guard_rules import loss_spike as loss_spike
from gradtx.wrappers.guard_rules import norm_spike as norm_spike
from gradtx.wrappers.guard_rules import skip_when as skip_when
from gradtx.wrappers.hyperparameters import InjectStatefulHyperparamsState as InjectStatefulHyperparamsState
from gradtx.wrappers.hyperparameters import inject_hyperparams as inject_hyperparams
from gradtx.wrappers.lookahead import LookaheadParams as LookaheadParams
from gradtx.wrappers.lookahead import LookaheadState as LookaheadState
from gradtx.wrappers.lookahead import lookahead as lookahead
from gradtx.wrappers.loss_scale import DynamicLossScaleState as DynamicLossScaleState
from gradtx.wrappers.loss_scale import dynamic_loss_scale as dynamic_loss_scale
from gradtx.wrappers.loss_scale import loss_scale as loss_scale
from gradtx.wrappers.low_rank import GaLoreState as GaLoreState
from gradtx.wrappers.low_rank import LowRankState as LowRankState
from gradtx.wrappers.low_rank import low_rank as low_rank
from gradtx.wrappers.masked import MaskedState as MaskedState
from gradtx.wrappers.masked import masked as masked
from gradtx.wrappers.mechanic import MechanicState as MechanicState
from gradtx.wrappers.mechanic import mechanize as mechanize
from gradtx.wrappers.partition import PartitionState as PartitionState
from gradtx.wrappers.partition import partition as partition
from gradtx.wrappers.prefixes import MaskedNode as MaskedNode
from gradtx.wrappers.primal_averaging import PrimalAveragingState as PrimalAveragingState
from gradtx.wrappers.primal_averaging import primal_averaging as primal_averaging
from gradtx.wrappers.recording import RecordMetricsState as RecordMetricsState
from gradtx.wrappers.recording import record_metrics as record_metrics
from gradtx.wrappers.repacking import repack_state as repack_state
from gradtx.wrappers.reset_every import ResetEveryState as ResetEveryState
from gradtx.wrappers.reset_every import reset_every as reset_every
from gradtx.wrappers.sam import GSAMState as GSAMState
from gradtx.wrappers.sam import SAMState as SAMState
from gradtx.wrappers.sam import sam as sam
from gradtx.wrappers.schedule_free import ScheduleFreeAveragingState as ScheduleFreeAveragingState
from gradtx.wrappers.schedule_free import ScheduleFreeState as ScheduleFreeState
from gradtx.wrappers.schedule_free import schedule_free as schedule_free
from gradtx.wrappers.schedule_free import schedule_free_averaging as schedule_free_averaging
from gradtx.wrappers.schedule_free import schedule_free_eval_params as schedule_free_eval_params
from gradtx.wrappers.signs import cautious as cautious
from gradtx.wrappers.signs import with_gradient_signs as with_gradient_signs
from gradtx.wrappers.split_complex import SplitRealAndImaginaryArrays as SplitRealAndImaginaryArrays
from gradtx.wrappers.split_complex import SplitRealAndImaginaryState as SplitRealAndImaginaryState
from gradtx.wrappers.split_complex import split_real_and_imaginary as split_real_and_imaginary
from gradtx.wrappers.trac import TracState as TracState
from gradtx.wrappers.trac import trac as trac
from gradtx.wrappers.unstacking import unstacked as unstacked
