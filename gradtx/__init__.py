# SPDX-License-Identifier: Apache-2.0
"""Composable gradient transformations for JAX."""

from gradtx.core.apply import apply_updates as apply_updates
from gradtx.core.combine import chain as chain
from gradtx.core.combine import identity as identity
from gradtx.core.combine import named_chain as named_chain
from gradtx.core.combine import stateless as stateless
from gradtx.core.combine import stateless_with_tree_map as stateless_with_tree_map
from gradtx.core.counts import safe_increment as safe_increment
from gradtx.core.factory import ScheduledState as ScheduledState
from gradtx.core.factory import per_parameter as per_parameter
from gradtx.core.factory import transformation as transformation
from gradtx.core.ranges import Decay as Decay
from gradtx.core.ranges import DType as DType
from gradtx.core.ranges import Fraction as Fraction
from gradtx.core.ranges import NonNegative as NonNegative
from gradtx.core.ranges import Positive as Positive
from gradtx.core.ranges import Range as Range
from gradtx.core.ranges import Real as Real
from gradtx.core.schedule import Schedule as Schedule
from gradtx.core.schedule import schedule as schedule
from gradtx.core.transformation import GradientTransformation as GradientTransformation
from gradtx.core.transformation import GradientTransformationExtraArgs as GradientTransformationExtraArgs
from gradtx.core.transformation import with_extra_args_support as with_extra_args_support
from gradtx.core.types import EmptyState as EmptyState
from gradtx.core.types import OptState as OptState
from gradtx.core.types import Params as Params
from gradtx.core.types import ScalarOrSchedule as ScalarOrSchedule
from gradtx.core.types import Updates as Updates
