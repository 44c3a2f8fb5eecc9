# SPDX-License-Identifier: Apache-2.0
"""What the schedules refuse when they are made, with sentences that name the argument and say what was given."""

import pytest

import gradtx
from support.public import NAMES

HALF = gradtx.constant_schedule(0.5)
VALUES, JOIN, PIECES = "piecewise_values_schedule", "join_schedules", "piecewise_constant_schedule"
SGDR = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 9, "decay_steps": 9}


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("constant_schedule", ("fast",), TypeError, "value must be a number.*'fast'"),
        ("constant_schedule", (HALF,), TypeError, "value must be a number.*constant_schedule"),
        ("constant_schedule", (float("nan"),), ValueError, "value must be a number, got nan"),
        ("linear_schedule", (1.0, 0.1, float("nan")), ValueError, "transition_steps must be a number, got nan"),
        ("polynomial_schedule", (1.0, 0.1, -2.0, 10), ValueError, "power must be a number >= 0, got -2"),
        ("exponential_decay", (1.0, 10, -0.5), ValueError, "decay_rate must be a number >= 0, got -0.5"),
        ("exponential_decay", (1.0, 10, 0.5, 0, 3), TypeError, "staircase must be True or False, got 3"),
        ("inverse_time_decay", (1.0, 10, -1.0), ValueError, "decay_rate must be a number >= 0, got -1"),
        ("natural_exponential_decay", (1.0, -10, 0.5), ValueError, "transition_steps must be a number > 0, got -10"),
        ("step_decay_schedule", (1.0, 0), ValueError, "drop_steps must be a number > 0, got 0"),
        ("cosine_decay_schedule", (1.0, 0), ValueError, "decay_steps must be a number > 0, got 0"),
        ("cosine_decay_schedule", (1.0, 9, 0.0, -1.0), ValueError, "exponent must be a number >= 0, got -1"),
        ("warmup_constant_schedule", (0.0, 1.0, -3), ValueError, "warmup_steps must be a number >= 0, got -3"),
        ("warmup_cosine_decay_schedule", (0.0, 1.0, 9, 9), ValueError, "decay_steps .* warmup_steps = 9, got 9"),
        ("warmup_exponential_decay_schedule", (0.0, 1.0, 9, 9, -1), ValueError, "decay_rate must be a number >= 0"),
        ("linear_onecycle_schedule", (10, 1.0, 0.5, 0.4), ValueError, "pct_final .* pct_start = 0.5, got 0.4"),
        ("cosine_onecycle_schedule", (10, 1.0, 1.5), ValueError, r"pct_start must be in \[0, 1\], got 1.5"),
        ("cosine_onecycle_schedule", (10, 1.0, 0.3, 0), ValueError, "div_factor must be a number > 0, got 0"),
        ("piecewise_interpolate_schedule", ("cubic", 1.0), ValueError, "interpolate_type must be .*linear.*'cubic'"),
        ("piecewise_interpolate_schedule", ("linear", 1.0, {3: -1}), ValueError, r"boundaries_and_scales\[3\].*got -1"),
        (PIECES, (1.0, [3, 0.5]), TypeError, r"boundaries_and_scales must be a dict.* got \[3, 0.5\]"),
        (PIECES, (1.0, {3: "half"}), TypeError, r"boundaries_and_scales\[3\] must be a number >= 0, got 'half'"),
        (PIECES, (1.0, {"3": 0.5}), TypeError, "a key of boundaries_and_scales must be a number, got '3'"),
        (VALUES, ([3, 3], [1.0, 0.5, 0.2]), ValueError, "boundaries must be strictly increasing, got 3 before 3"),
        (VALUES, ([3, 9], [1.0, 0.5]), ValueError, "values must have one element more than boundaries, 3, got 2"),
        (VALUES, ([3], [1.0, "low"]), TypeError, r"values\[1\] must be a number, got 'low'"),
        (VALUES, ([3], [1.0, float("nan")]), ValueError, r"values\[1\] must be a number, got nan"),
        (VALUES, (["3"], [1.0, 0.5]), TypeError, r"boundaries\[0\] must be a number, got '3'"),
        (VALUES, (3, [1.0, 0.5]), TypeError, r"boundaries must be a list or a tuple, got 3 \(int\)"),
        (JOIN, ([HALF, HALF, HALF], [9, 3]), ValueError, "boundaries must not decrease, got 9 before 3"),
        (JOIN, ([HALF, HALF], [3, 9]), ValueError, "schedules must have one element more than boundaries, 3, got 2"),
        (JOIN, ([], []), ValueError, "schedules must have one element more than boundaries, 1, got 0"),
        (JOIN, ([HALF, 0.5], [3]), TypeError, r"schedules\[1\] must be a function of the step.*got 0.5"),
        (JOIN, (HALF, []), TypeError, r"schedules must be a list or a tuple, got constant_schedule\(0.5\)"),
        ("sgdr_schedule", ([],), TypeError, r"cosine_kwargs must be dicts .* at least one, got \[\]"),
        ("sgdr_schedule", ([3],), TypeError, r"cosine_kwargs must be dicts .* got \[3\]"),
        ("sgdr_schedule", ([SGDR],), ValueError, "decay_steps .* warmup_steps = 9, got 9"),
    ],
)
def test_refused(name: str, arguments: tuple, error: type[Exception], message: str):
    with pytest.raises(error, match=f"{name if name != 'sgdr_schedule' else ''}.*{message}"):
        NAMES[name](*arguments)
