# SPDX-License-Identifier: Apache-2.0
"""The numbers to reach, and where a run stands."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .cases import BANDWIDTH, in_the_mean
from .measures import Result
from .tables import geometric_mean, table


class Goal(NamedTuple):
    """A number that may be so large."""

    what: str
    limit: float
    found: float


MEANS = {"step": (0.80, 1.05), "trace": (0.35, 1.0), "lower": (0.55, None), "compile": (0.85, 1.1)}
MEANS |= {"update": (0.12, None), "construct": (15.0, None)}
"""The geometric mean of the ratios to Optax, and the worst of them."""

FLOOR = {"adam/large": 1.1, "adamw/large": 1.1, "lion/large": 1.1, "sgd/large": 1.1}
"""The step in times of a loop that moves as many bytes."""

TORCH = {"adamw/large": ("fused", 0.8), "adamw/gpt": ("fused", 0.8), "adamw/leaves": ("fused", 1.2)}
TORCH |= {f"{name}/{tree}": ("foreach", 0.8) for name in ("sgd", "adam", "adafactor") for tree in ("large", "gpt")}
"""The step in times of PyTorch's, in one of its forms."""

IMPORT_SECONDS, WHEEL_BYTES = 0.1, 600_000


def goals(results: Sequence[Result]) -> Iterator[Goal]:
    """Those of which the run has measured enough."""
    for measure, (mean, worst) in MEANS.items():
        found = [x for r in results if in_the_mean(r.case) and (x := r.ratio(measure)) is not None]
        if found:
            yield Goal(f"{measure}, geometric mean of {len(found)} cases over Optax", mean, geometric_mean(found))
            if worst is not None:
                yield Goal(f"{measure}, the worst case over Optax", worst, max(found))
    steps = {r.case: r.against["step"] for r in results if "step" in r.values}
    for case, limit in FLOOR.items():
        if BANDWIDTH in steps.get(case, {}):
            yield Goal(f"step of `{case}` over the bandwidth floor", limit, steps[case][BANDWIDTH])
    if {"adamw/large", "clip_adamw/large"} <= steps.keys():
        seconds = {r.case: r.values["step"]["gradtx"] for r in results if "step" in r.values}
        clips = seconds["clip_adamw/large"] / seconds["adamw/large"]
        yield Goal("step of `clip_adamw/large` over that without clipping", 1.15, clips)
    for case, (form, limit) in TORCH.items():
        against = steps.get(case, {}).get(f"torch, {form}")
        if against is not None:
            yield Goal(f"step of `{case}` over PyTorch's, {form}", limit, against)


def standing(found: Sequence[Goal]) -> str:
    rows = [[g.what, f"{g.limit:g}", f"{g.found:.3g}", "yes" if g.found <= g.limit else "no"] for g in found]
    return table(["goal", "at most", "now", "reached"], rows)
