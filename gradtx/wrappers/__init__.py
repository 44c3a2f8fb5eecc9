# SPDX-License-Identifier: Apache-2.0
"""Transformations of transformations."""

from gradtx.wrappers.low_rank import GaLoreState as GaLoreState
from gradtx.wrappers.low_rank import LowRankState as LowRankState
from gradtx.wrappers.low_rank import low_rank as low_rank
from gradtx.wrappers.masked import MaskedNode as MaskedNode
from gradtx.wrappers.masked import MaskedState as MaskedState
from gradtx.wrappers.masked import masked as masked
from gradtx.wrappers.mechanic import MechanicState as MechanicState
from gradtx.wrappers.mechanic import mechanize as mechanize
from gradtx.wrappers.primal_averaging import PrimalAveragingState as PrimalAveragingState
from gradtx.wrappers.primal_averaging import primal_averaging as primal_averaging
from gradtx.wrappers.repacking import repack_state as repack_state
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
