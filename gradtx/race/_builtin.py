# SPDX-License-Identifier: Apache-2.0
"""The tasks that come with gradtx, by name. They are made when they are asked for."""

from collections.abc import Callable

from gradtx.race._digits_tasks import convolution, digits
from gradtx.race._function_tasks import logistic, quadratic, rosenbrock
from gradtx.race._task import Task
from gradtx.race._text_task import transformer

BUILTIN: dict[str, Callable[[], Task]] = {
    f.__name__: f for f in (digits, convolution, transformer, logistic, quadratic, rosenbrock)
}
