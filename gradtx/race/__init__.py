# SPDX-License-Identifier: Apache-2.0
"""A race: which optimizer needs fewer steps, on small tasks, each at its own best rate. `python -m gradtx.race`."""

from gradtx.race._outcome import Outcome as Outcome
from gradtx.race._outcome import TaskResult as TaskResult
from gradtx.race._race_report import RaceReport as RaceReport
from gradtx.race._racing import race as race
from gradtx.race._task import Task as Task
