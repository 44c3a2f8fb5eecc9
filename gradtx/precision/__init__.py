# SPDX-License-Identifier: Apache-2.0
"""Precision: how slots and parameters are stored in few bytes, and rounded."""

from gradtx.precision.block_floats import float8 as float8
from gradtx.precision.blocks import Blocks as Blocks
from gradtx.precision.blockwise import int8 as int8
from gradtx.precision.checking import PrecisionReport as PrecisionReport
from gradtx.precision.checking import PrecisionRow as PrecisionRow
from gradtx.precision.checking import check_precision as check_precision
from gradtx.precision.codec import Codec as Codec
from gradtx.precision.companded import companded8 as companded8
from gradtx.precision.floats import bfloat16 as bfloat16
from gradtx.precision.floats import float32 as float32
from gradtx.precision.fourbit import Factored as Factored
from gradtx.precision.fourbit import int4 as int4
from gradtx.precision.master import WithMasterParamsState as WithMasterParamsState
from gradtx.precision.master import master_params as master_params
from gradtx.precision.master import with_master_params as with_master_params
from gradtx.precision.presets import adamw8bit as adamw8bit
from gradtx.precision.presets import adamw_bf16 as adamw_bf16
from gradtx.precision.presets import lion8bit as lion8bit
from gradtx.precision.presets import muon8bit as muon8bit
from gradtx.precision.rounding import CompensateState as CompensateState
from gradtx.precision.rounding import ErrorBitsState as ErrorBitsState
from gradtx.precision.rounding import KeepMasterState as KeepMasterState
from gradtx.precision.rounding import RoundStochasticallyState as RoundStochasticallyState
from gradtx.precision.rounding import compensate as compensate
from gradtx.precision.rounding import error_bits as error_bits
from gradtx.precision.rounding import keep_master as keep_master
from gradtx.precision.rounding import round_stochastically as round_stochastically
from gradtx.precision.storage import StoredState as StoredState
from gradtx.precision.storage import stored as stored
