# SPDX-License-Identifier: Apache-2.0
"""Runs fault machines, and counts their events and findings.

    python tests/faults.py [--machines 108] [--first 0] [--events 105]

The exit status is 1 if there is a finding, which is printed as the shortest life in which it happens.
"""

import argparse
import os
import pathlib
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
# As in the tests: eight devices, and no optimizing of what runs once or twice.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
FLAGS += " --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"

import jax  # noqa: E402  # after the path is set

jax.config.update("jax_platforms", "cpu")

from gradtx.core import _kernels as kernels  # noqa: E402
from support.fault_machine import EVENTS, run_machine  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=108)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--events", type=int, default=105, help="of one machine")
    options = parser.parse_args()
    findings = 0
    for seed in range(options.first, options.first + options.machines):
        try:
            run_machine(seed, options.events)
        except Exception:
            findings += 1
            print(f"seed {seed}:", file=sys.stderr)
            traceback.print_exc()
        if seed % 10 == 9:  # thousands of programs are gigabytes
            jax.clear_caches()
            kernels.forget()
        print(f"seed {seed}: {sum(EVENTS.values())} events so far", file=sys.stderr, flush=True)
    for event, times in EVENTS.most_common():
        print(f"{times:6d} {event}")
    print(f"{sum(EVENTS.values()):6d} events, {findings} findings")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
