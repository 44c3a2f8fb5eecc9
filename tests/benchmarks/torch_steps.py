# SPDX-License-Identifier: Apache-2.0
"""The steps of PyTorch's optimizers, in the forms that it has: fused, and foreach. None where it is not installed."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .trees import Params

try:
    import torch  # pyright: ignore[reportMissingImports]  # an extra
except ImportError:
    torch: Any = None

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""As many as XLA has, which takes a thread for each core that this process may use."""

FUSED, FOREACH = {"torch, fused": {"fused": True}}, {"torch, foreach": {"foreach": True}}


def steps(recipe: str, params: Params) -> dict[str, Callable[[], object]]:
    """A function for each form, on a copy of the parameters."""
    if torch is None:
        return {}
    torch.set_num_threads(THREADS)
    makers: dict[str, tuple[Callable, dict[str, dict[str, Any]]]] = {
        "sgd": (lambda ps, **form: torch.optim.SGD(ps, 1e-3, momentum=0.9, **form), FUSED | FOREACH),
        "adam": (lambda ps, **form: torch.optim.Adam(ps, 1e-3, **form), FUSED | FOREACH),
        "adamw": (lambda ps, **form: torch.optim.AdamW(ps, 1e-3, **form), FUSED | FOREACH),
        "clip_adamw": (lambda ps, **form: torch.optim.AdamW(ps, 1e-3, **form), FUSED | FOREACH),
        "adafactor": (lambda ps, **form: torch.optim.Adafactor(ps, 1e-3, **form), FOREACH),
        "muon": (lambda ps, **form: torch.optim.Muon(ps, 1e-3, **form), {"torch": {}}),
    }
    if recipe not in makers:
        return {}
    make, forms = makers[recipe]
    return {name: _step(make, form, params, recipe == "clip_adamw") for name, form in forms.items()}


def _step(make: Callable, form: dict[str, Any], params: Params, clips: bool) -> Callable[[], object]:
    tensors = [torch.nn.Parameter(torch.from_numpy(np.array(p))) for p in params]
    for p in tensors:
        p.grad = 0.01 * torch.cos(p.detach())
    optimizer = make(tensors, **form)

    def run() -> None:
        if clips:
            torch.nn.utils.clip_grad_norm_(tensors, 1.0, foreach=True)
        optimizer.step()

    return run
