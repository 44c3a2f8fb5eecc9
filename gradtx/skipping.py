# SPDX-License-Identifier: Apache-2.0
"""Skipping: reasons to leave a step out, for `guard`, and for `MultiSteps`."""

from gradtx.wrappers._guard_rules import GuardedStep as GuardedStep
from gradtx.wrappers._guard_rules import GuardRule as GuardRule
from gradtx.wrappers._guard_rules import SkipReason as SkipReason
from gradtx.wrappers._guard_rules import guard_rule as guard_rule
from gradtx.wrappers._guard_rules import loss_spike as loss_spike
from gradtx.wrappers._guard_rules import norm_spike as norm_spike
from gradtx.wrappers._guard_rules import skip_when as skip_when
from gradtx.wrappers._multi_steps import skip_large_updates as skip_large_updates
from gradtx.wrappers._multi_steps import skip_not_finite as skip_not_finite
