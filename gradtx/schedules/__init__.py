# SPDX-License-Identifier: Apache-2.0
"""Functions of the number of updates made, as values. Imports only gradtx.core."""

from gradtx.schedules.ademamix import ademamix_alpha_schedule as ademamix_alpha_schedule
from gradtx.schedules.ademamix import ademamix_b3_schedule as ademamix_b3_schedule
from gradtx.schedules.constant import constant_schedule as constant_schedule
from gradtx.schedules.constant import piecewise_constant_schedule as piecewise_constant_schedule
from gradtx.schedules.constant import piecewise_values_schedule as piecewise_values_schedule
from gradtx.schedules.cosine import cosine_decay_schedule as cosine_decay_schedule
from gradtx.schedules.decay import exponential_decay as exponential_decay
from gradtx.schedules.decay import inverse_time_decay as inverse_time_decay
from gradtx.schedules.decay import natural_exponential_decay as natural_exponential_decay
from gradtx.schedules.decay import step_decay_schedule as step_decay_schedule
from gradtx.schedules.joining import join_schedules as join_schedules
from gradtx.schedules.onecycle import cosine_onecycle_schedule as cosine_onecycle_schedule
from gradtx.schedules.onecycle import linear_onecycle_schedule as linear_onecycle_schedule
from gradtx.schedules.onecycle import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from gradtx.schedules.polynomial import linear_schedule as linear_schedule
from gradtx.schedules.polynomial import polynomial_schedule as polynomial_schedule
from gradtx.schedules.warmup import sgdr_schedule as sgdr_schedule
from gradtx.schedules.warmup import warmup_constant_schedule as warmup_constant_schedule
from gradtx.schedules.warmup import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from gradtx.schedules.warmup import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
