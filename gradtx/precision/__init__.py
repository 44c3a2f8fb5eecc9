# SPDX-License-Identifier: Apache-2.0
"""Precision: the codecs that keep slots in few bytes, and a check of whether a step is lost in rounding."""

from gradtx.precision._bfloat16 import bfloat16 as bfloat16
from gradtx.precision._bfloat16 import float32 as float32
from gradtx.precision._blockwise import Blocks as Blocks
from gradtx.precision._check_precision import check_precision as check_precision
from gradtx.precision._codec import Codec as Codec
from gradtx.precision._companded8 import companded8 as companded8
from gradtx.precision._float8 import float8 as float8
from gradtx.precision._int4 import Factored as Factored
from gradtx.precision._int4 import int4 as int4
from gradtx.precision._int8 import int8 as int8
from gradtx.precision._symmetric import Triangle as Triangle
from gradtx.precision._symmetric import symmetric as symmetric
