# SPDX-License-Identifier: Apache-2.0
"""Stages: what a chain is made of, one family a file."""

from gradtx.transforms.clipping import clip as clip
from gradtx.transforms.clipping import clip_by_block_rms as clip_by_block_rms
from gradtx.transforms.clipping import clip_by_global_norm as clip_by_global_norm
from gradtx.transforms.clipping import clip_by_norm as clip_by_norm
from gradtx.transforms.ema import EmaState as EmaState
from gradtx.transforms.ema import ema as ema
from gradtx.transforms.momentum import ScaleByMomentumState as ScaleByMomentumState
from gradtx.transforms.momentum import TraceState as TraceState
from gradtx.transforms.momentum import scale_by_momentum as scale_by_momentum
from gradtx.transforms.momentum import trace as trace
from gradtx.transforms.noise import AddNoiseState as AddNoiseState
from gradtx.transforms.noise import add_noise as add_noise
from gradtx.transforms.norms import normalize_by_update_norm as normalize_by_update_norm
from gradtx.transforms.norms import scale_by_param_block_norm as scale_by_param_block_norm
from gradtx.transforms.norms import scale_by_param_block_rms as scale_by_param_block_rms
from gradtx.transforms.norms import scale_by_trust_ratio as scale_by_trust_ratio
from gradtx.transforms.proximal_decay import add_proximal_decay as add_proximal_decay
from gradtx.transforms.scaling import ScaleByBiasCorrectionState as ScaleByBiasCorrectionState
from gradtx.transforms.scaling import ScaleByScheduleState as ScaleByScheduleState
from gradtx.transforms.scaling import scale as scale
from gradtx.transforms.scaling import scale_by_bias_correction as scale_by_bias_correction
from gradtx.transforms.scaling import scale_by_learning_rate as scale_by_learning_rate
from gradtx.transforms.scaling import scale_by_lr as scale_by_lr
from gradtx.transforms.scaling import scale_by_schedule as scale_by_schedule
from gradtx.transforms.weight_decay import WeightDecaySchedule as WeightDecaySchedule
from gradtx.transforms.weight_decay import add_decayed_weights as add_decayed_weights
