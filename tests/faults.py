# SPDX-License-Identifier: Apache-2.0
"""Runs fault machines, and counts their events and findings.

    python tests/faults.py [--machines 108] [--first 0] [--events 105] [--processes 1] [--as-found]

The exit status is 1 if there is a finding, which is printed as the shortest life in which it happens, or `--as-found`.
"""

import argparse
import collections
import functools
import multiprocessing
import os
import pathlib
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
# As in the tests: eight devices, and no optimizing of what runs once or twice.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
FLAGS += " --xla_llvm_disable_expensive_passes=true"


def life(seed: int, events: int, shrink: bool) -> tuple[int, collections.Counter[str], str]:
    """The seed of a machine, how often each event happened in it, and the finding, as text."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    if folder := os.environ.get("GRADTX_TEST_CACHE"):  # of compiled programs, as in the tests
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    from support.fault_machine import EVENTS, run_machine

    EVENTS.clear()
    try:
        run_machine(seed, events, shrink)
    except Exception:
        return seed, collections.Counter(EVENTS), traceback.format_exc()
    return seed, collections.Counter(EVENTS), ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=108)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--events", type=int, default=105, help="of one machine")
    parser.add_argument("--processes", type=int, default=1, help="that run machines side by side")
    parser.add_argument("--as-found", action="store_true", help="do not look for a shorter life with the same finding")
    options = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
    events, findings, done = collections.Counter[str](), 0, 0
    # New processes after a few machines, as thousands of programs are gigabytes; spawned, as JAX does not like forks.
    seeds = range(options.first, options.first + options.machines)
    one = functools.partial(life, events=options.events, shrink=not options.as_found)
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=12) as pool:
        for seed, happened, finding in pool.imap_unordered(one, seeds):
            events, done, findings = events + happened, done + 1, findings + bool(finding)
            if finding:
                print(f"seed {seed}:\n{finding}", file=sys.stderr)
            print(f"{done} machines, {events.total()} events so far", file=sys.stderr, flush=True)
    for event, times in events.most_common():
        print(f"{times:6d} {event}")
    print(f"{events.total():6d} events, {findings} findings")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
