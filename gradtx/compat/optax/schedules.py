# SPDX-License-Identifier: Apache-2.0
"""Schedules: the names of `optax.schedules`."""

from gradtx.compat._spellings import Schedule as Schedule
from gradtx.compat._spellings import inject_stateful_hyperparams as inject_stateful_hyperparams
from gradtx.schedules._cosine_decay import cosine_decay_schedule as cosine_decay_schedule
from gradtx.schedules._decay import exponential_decay as exponential_decay
from gradtx.schedules._joining import join_schedules as join_schedules
from gradtx.schedules._onecycle import cosine_onecycle_schedule as cosine_onecycle_schedule
from gradtx.schedules._onecycle import linear_onecycle_schedule as linear_onecycle_schedule
from gradtx.schedules._onecycle import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from gradtx.schedules._piecewise import constant_schedule as constant_schedule
from gradtx.schedules._piecewise import piecewise_constant_schedule as piecewise_constant_schedule
from gradtx.schedules._polynomial import linear_schedule as linear_schedule
from gradtx.schedules._polynomial import polynomial_schedule as polynomial_schedule
from gradtx.schedules._stateful import StatefulSchedule as StatefulSchedule
from gradtx.schedules._stateful import WrappedSchedule as WrappedSchedule
from gradtx.schedules._with_warmup import sgdr_schedule as sgdr_schedule
from gradtx.schedules._with_warmup import warmup_constant_schedule as warmup_constant_schedule
from gradtx.schedules._with_warmup import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from gradtx.schedules._with_warmup import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from gradtx.wrappers._hyperparameters import InjectHyperparamsState as InjectHyperparamsState
from gradtx.wrappers._hyperparameters import InjectStatefulHyperparamsState as InjectStatefulHyperparamsState
from gradtx.wrappers._hyperparameters import inject_hyperparams as inject_hyperparams
