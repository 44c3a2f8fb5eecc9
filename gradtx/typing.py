# SPDX-License-Identifier: Apache-2.0
"""Typing: what arguments of factories are annotated with, which is also what they are checked by; and trees."""

from gradtx.core._ranges import Decay as Decay
from gradtx.core._ranges import DType as DType
from gradtx.core._ranges import Fraction as Fraction
from gradtx.core._ranges import NonNegative as NonNegative
from gradtx.core._ranges import NonNegativeInt as NonNegativeInt
from gradtx.core._ranges import Positive as Positive
from gradtx.core._ranges import PositiveInt as PositiveInt
from gradtx.core._ranges import Range as Range
from gradtx.core._ranges import Real as Real
from gradtx.core._types import OptState as OptState
from gradtx.core._types import Params as Params
from gradtx.core._types import ScalarOrSchedule as ScalarOrSchedule
from gradtx.core._types import TransformationLike as TransformationLike
from gradtx.core._types import UpdateFn as UpdateFn
from gradtx.core._types import Updates as Updates
from gradtx.schedules._schedule import Schedule as Schedule
