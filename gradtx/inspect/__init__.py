# SPDX-License-Identifier: Apache-2.0
"""Looking into states: what a transformation remembers, and changing it by hand."""

from gradtx.inspect.description import Description as Description
from gradtx.inspect.description import ParameterRow as ParameterRow
from gradtx.inspect.description import describe as describe
from gradtx.inspect.explaining import Explanation as Explanation
from gradtx.inspect.explaining import StageNumbers as StageNumbers
from gradtx.inspect.explaining import explain_path as explain_path
from gradtx.inspect.migration import migrate as migrate
from gradtx.inspect.report import MigrationReport as MigrationReport
from gradtx.inspect.report import MigrationRow as MigrationRow
from gradtx.inspect.stages import Slot as Slot
from gradtx.inspect.stages import Stage as Stage
from gradtx.inspect.state import StateSlot as StateSlot
from gradtx.inspect.state import find_slots as find_slots
from gradtx.inspect.state import get_slot as get_slot
from gradtx.inspect.state import reset as reset
from gradtx.inspect.state import set_slot as set_slot
