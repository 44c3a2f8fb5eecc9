# SPDX-License-Identifier: Apache-2.0
"""A race of optimizers on small tasks, each at the best of a grid of learning rates.

    python -m gradtx.race "adamw(1e-3)" "muon(2e-2)"
    python -m gradtx.race "adamw(1e-3)" "optax:adamw(1e-3)" --task rosenbrock --task mypackage.mytask:task

Contenders are calls of gradtx, or import paths of any object with init and update.
The others are compared with the first.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gradtx.race._builtin import BUILTIN
from gradtx.race._race_report import RaceReport
from gradtx.race._racing import RATES, SEEDS, grid, race
from gradtx.race._waiting import bar


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    form = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(prog="python -m gradtx.race", description=__doc__, formatter_class=form)
    add = found.add_argument
    add("contenders", nargs="+", help="adamw(1e-3), optax:adamw(1e-3), mypackage.module:factory")
    names = ", ".join(BUILTIN)
    add(
        "--task",
        action="append",
        help=f"{names}, or an import path; may be repeated (default: all of these)",
    )
    add("--seeds", type=int, help=f"how many runs at each rate (default: {SEEDS})")
    add(
        "--rates",
        type=int,
        help=f"how many learning rates, three in a decade, around that given (default: {RATES})",
    )
    add("--steps", type=int, help="of each run (default: those of each task)")
    add("--png", help="write a picture; needs matplotlib")
    add("--json", help="write all numbers")
    add("--quick", action="store_true", help="2 seeds, 3 rates and 20 steps: to see that it runs")
    add("--quiet", action="store_true", help="show no progress")
    return found


def main(argv: Sequence[str] | None = None) -> RaceReport:
    """Runs the command and prints the report."""
    form = parser()
    args = form.parse_args(argv)
    seeds, rates, steps = (2, 3, 20) if args.quick else (SEEDS, RATES, None)
    rates = rates if args.rates is None else args.rates
    for name in ("seeds", "rates", "steps"):
        if (given := getattr(args, name)) is not None and given < 1:
            form.error(f"--{name} must be 1 or more, got {given}")
    for path in filter(None, (args.png, args.json)):  # before minutes of work
        if not Path(path).absolute().parent.is_dir():
            form.error(f"there is no folder for {path}")
    if os.getcwd() not in sys.path:  # for tasks and contenders by import path
        sys.path.insert(0, os.getcwd())
    try:
        if args.png:
            from gradtx.race._picture import picture, saved
        report = race(
            args.contenders,
            args.task,
            seeds=seeds if args.seeds is None else args.seeds,
            factors=grid(rates),
            steps=steps if args.steps is None else args.steps,
            progress=None if args.quiet else bar,
        )
    except (TypeError, ValueError, ImportError) as error:
        form.error(str(error))
    print(report)
    if args.json:
        Path(args.json).write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    if args.png:
        saved(picture(report), args.png)
    return report
