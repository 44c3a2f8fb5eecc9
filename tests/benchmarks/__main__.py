# SPDX-License-Identifier: Apache-2.0
"""What a step costs, beside Optax and, where it is installed, PyTorch: the tables of docs/benchmarks.md.

    python -m tests.benchmarks                                  everything, an hour or more
    python -m tests.benchmarks --quick                          small trees and single rounds: does it run?
    python -m tests.benchmarks --table first-order matrices     some of the tables
    python -m tests.benchmarks --case "adam*/gpt" --measure step trace
    python -m tests.benchmarks --json FILE                      all numbers in a file too
    python -m tests.benchmarks --growth                         growth instead: docs/images/growth.png
    python -m tests.benchmarks --record                         counts anew, for tests/test_counts.py

Contenders run interleaved in one process, in a new random order each round. In the tables, a number in parentheses is
in times of Optax's, or of what the row or the table names: the median of the ratios of all rounds.
"""

import argparse
import datetime
import fnmatch
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import optax

from . import counts, goals, growth, packages, tables, torch_steps
from .cases import TABLES, Case, all_cases
from .measures import MEASURES, Result, measured
from .timing import Effort
from .trees import FULL, SMALL

START = "start"
"""The table of what is paid once: import and wheel."""


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (*TABLES, START)
    parser.add_argument("--table", nargs="+", choices=names, default=names, help=f"of {', '.join(names)}")
    parser.add_argument("--case", nargs="+", default=["*"], help="names of cases; * stands for anything")
    parser.add_argument(
        "--measure", nargs="+", choices=MEASURES, default=tuple(MEASURES), help=f"of {', '.join(MEASURES)}"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="for a measure of a case (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="the least for a measure of a case (default: 5)")
    parser.add_argument("--cpu-time", action="store_true", help="of this process, for a busy machine")
    parser.add_argument("--quick", action="store_true", help="small trees and single rounds")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    parser.add_argument("--growth", action="store_true", help="measures growth, and draws it")
    parser.add_argument("--record", action="store_true", help="writes counts.json")
    return parser.parse_args(argv)


def chosen(options: argparse.Namespace) -> list[tuple[str, Case]]:
    """The cases that were asked for, each with its table."""
    if options.growth:
        found = growth.cases(options.quick)
    else:
        made = all_cases(SMALL if options.quick else FULL)
        found = [(table, case) for table in options.table if table != START for case in made[table]]
    return [(t, case) for t, case in found if any(fnmatch.fnmatch(case.name, x) for x in options.case)]


def machine() -> dict[str, str]:
    """What the times depend on; the load is how many processes want a core, in the mean of the last minute."""
    device = jax.devices()[0]
    versions = {"jax": jax.__version__, "optax": optax.__version__, "python": platform.python_version()}
    if torch_steps.torch is not None:
        versions["torch"] = torch_steps.torch.__version__
    kind = f"{device.device_kind}, {platform.machine()}, {torch_steps.THREADS} cores"
    return {"date": f"{datetime.date.today()}", "device": kind, **versions, "load": f"{os.getloadavg()[0]:.1f}"}


def kept(found: Iterable[Result], file: Path | None) -> list[Result]:
    """All results, named as they come, and in the file at once, so that nothing is lost."""
    results: list[Result] = []
    for result in found:
        print(f"{result.table}: {result.case}", file=sys.stderr, flush=True)
        results.append(result)
        if file:
            file.write_text(
                json.dumps({"machine": machine(), "results": [r._asdict() for r in results]}, indent=1) + "\n"
            )
    return results


def main() -> None:
    options = parsed()
    if options.record:
        counts.record()
        return
    clock = time.process_time if options.cpu_time else time.perf_counter
    effort = Effort(0.0, 1, 1, clock) if options.quick else Effort(options.seconds, options.rounds, 200, clock)
    print(", ".join(f"{name} {x}" for name, x in machine().items()), "\n", flush=True)
    if options.growth:
        results = kept((growth.measured(axis, case, effort) for axis, case in chosen(options)), options.json)
        print(growth.page(results))
        if not options.quick:
            growth.draw(results, growth.OUT)
        return
    results = kept((measured(table, case, options.measure, effort) for table, case in chosen(options)), options.json)
    print(tables.page(results))
    found = list(goals.goals(results))
    if START in options.table:
        imported, wheel = packages.import_seconds(1 if options.quick else 7, clock.__name__), packages.wheel_bytes()
        rows = [[f"import of {name}, after JAX's", tables.seconds(x)] for name, x in imported.items()]
        print(f"## {START}\n\n" + tables.table(["", ""], [*rows, ["wheel", f"{wheel / 1000:.0f} kB"]]))
        found += [
            goals.Goal("import of gradtx, after JAX's, in seconds", goals.IMPORT_SECONDS, imported["gradtx"]),
            goals.Goal("wheel, in bytes", goals.WHEEL_BYTES, wheel),
        ]
    if found:
        print("## goals\n\n" + goals.standing(found))


if __name__ == "__main__":
    main()
