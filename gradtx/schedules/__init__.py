# SPDX-License-Identifier: Apache-2.0
"""Pieces to build schedules from, and schedules with a state. Whole schedules are in `gradtx` itself."""

from gradtx.schedules._ademamix_warmup import ademamix_alpha_schedule as ademamix_alpha_schedule
from gradtx.schedules._ademamix_warmup import ademamix_b3_schedule as ademamix_b3_schedule
from gradtx.schedules._epochs import at as at
from gradtx.schedules._pieces import constant as constant
from gradtx.schedules._pieces import cosine as cosine
from gradtx.schedules._pieces import inverse_sqrt as inverse_sqrt
from gradtx.schedules._pieces import linear as linear
from gradtx.schedules._pieces import one_minus_sqrt as one_minus_sqrt
from gradtx.schedules._pieces import one_minus_square as one_minus_square
from gradtx.schedules._pieces import rex as rex
from gradtx.schedules._pieces import warmup as warmup
from gradtx.schedules._products import multiplicative_schedule as multiplicative_schedule
from gradtx.schedules._schedule import Lasting as Lasting
from gradtx.schedules._stateful import StatefulSchedule as StatefulSchedule
from gradtx.schedules._stateful import WrappedSchedule as WrappedSchedule
