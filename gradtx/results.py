# SPDX-License-Identifier: Apache-2.0
"""Results: what functions such as `describe`, `migrate` and `minimize` return."""

from gradtx._minimize import MinimizeProgress as MinimizeProgress
from gradtx._minimize import MinimizeResult as MinimizeResult
from gradtx.configuration._diff import Change as Change
from gradtx.configuration._diff import Difference as Difference
from gradtx.describing._describe import Description as Description
from gradtx.describing._describe import ParameterRow as ParameterRow
from gradtx.describing._explain_path import Explanation as Explanation
from gradtx.describing._explain_path import StageNumbers as StageNumbers
from gradtx.describing._explain_update import ParameterUpdate as ParameterUpdate
from gradtx.describing._explain_update import StageUpdate as StageUpdate
from gradtx.describing._explain_update import UpdateExplanation as UpdateExplanation
from gradtx.describing._stages import Slot as Slot
from gradtx.describing._stages import Stage as Stage
from gradtx.precision._check_precision import PrecisionReport as PrecisionReport
from gradtx.precision._check_precision import PrecisionRow as PrecisionRow
from gradtx.surgery._access import StateSlot as StateSlot
from gradtx.surgery._report import MigrationReport as MigrationReport
from gradtx.surgery._report import MigrationRow as MigrationRow
from gradtx.wrappers._multi_steps import AccumulatingTransformation as AccumulatingTransformation
