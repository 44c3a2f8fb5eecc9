# SPDX-License-Identifier: Apache-2.0
"""What a step and an import cost, in counts that are the same everywhere; `counts.json` has those of the last commit.

    python -m tests.benchmarks --record     counts anew, and writes counts.json
    python -m tests.benchmarks.counts       counts, and prints it

`tests/test_counts.py` compares. Counted are small trees. Counts depend on the version of JAX and of Python, so those of
the file hold for the versions that it names, and nothing is compared with others.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxlib import version

from . import packages, programs
from .calls import calls_of
from .cases import Case, all_cases
from .contenders import Contender, Ready
from .trees import SMALL

FILE = Path(__file__).with_name("counts.json")
ROOT = Path(__file__).resolve().parents[2]
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Less machine code is optimized, which is half of the time and changes no count."""
RISE, FALL = 0.02, 0.1
"""By which part a count may differ from the recorded one."""

COUNTS = {
    "equations": "equations of the jaxpr of a step",
    "operations": "instructions of its optimized HLO",
    "calls": "calls of Python functions in a warm update outside jit",
    "compilations": "compilations in a second step",
}
OF_IMPORT = {"modules": "modules that an import loads", "calls": "calls of Python functions that it takes"}
AGAIN = "If that is what the change is for, run `python -m tests.benchmarks --record`, and commit the file with it."


def versions() -> dict[str, str]:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"jax": jax.__version__, "jaxlib": version.__version__, "python": python}


def recorded() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def cases() -> dict[str, Case]:
    """All but those that count the same again: on other trees, of AdamW without clipping and of it on stacks."""
    found = {case.name: case for cases in all_cases(SMALL).values() for case in cases}
    again = {"adamw/large", "adamw/gpt", "clip_adamw/stack"}
    return {
        name: case
        for name, case in found.items()
        if not name.endswith(("/leaves", "/many", "/floor")) and name not in again
    }


def counts(contender: Contender) -> dict[str, int]:
    """All of one transformation."""
    x = Ready(contender)
    found = {"equations": programs.equations(x.traced.jaxpr), "operations": programs.operations(x.compiled)}
    return {**found, "calls": calls_of("update", x), "compilations": compilations_of_a_second_step(x)}


def compilations_of_a_second_step(x: Ready) -> int:
    """Inside `jit` and outside, each with the state of the first step."""
    compiled = 0

    def on_event(event: str, duration_secs: float, **_: Any) -> None:
        nonlocal compiled
        compiled += event == "/jax/core/compile/backend_compile_duration"

    held = x.function(*jax.tree.map(jnp.copy, (x.params, x.state)), x.grads)
    _, state = x.tx.update(x.grads, x.state, x.params)
    jax.monitoring.register_event_duration_secs_listener(on_event)
    try:
        x.function(*held, x.grads)
        x.tx.update(x.grads, state, x.params)
    finally:
        jax.monitoring.unregister_event_duration_listener(on_event)
    return compiled


def count_all() -> dict[str, Any]:
    """In a process of its own: what others have set up and compiled changes counts."""
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}
    kept = {name: x for name, x in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    if cache := os.environ.get("GRADTX_TEST_CACHE"):
        settings |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "tests.benchmarks.counts"]
    done = subprocess.run(command, cwd=ROOT, env=kept | settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"counting ended with an error:\n{done.stderr}")
    return json.loads(done.stdout)


def record() -> None:
    FILE.write_text(json.dumps(count_all(), indent=1) + "\n")


def differences(
    found: dict[str, dict[str, int]], wanted: dict[str, dict[str, int]], meanings: dict[str, str] = COUNTS
) -> list[str]:
    """A sentence for each count that is out of bounds."""
    sentences = [f"{name} is new, and not recorded." for name in found.keys() - wanted.keys()]
    sentences += [f"{name} is recorded, and there is no such case." for name in wanted.keys() - found.keys()]
    for name in found.keys() & wanted.keys():
        for what, meaning in meanings.items():
            new, old = found[name][what], wanted[name][what]
            if new > old * (1 + RISE):
                sentences.append(f"{name}: {new} {meaning}, up from {old}: it costs more.")
            elif new < old * (1 - FALL):
                sentences.append(f"{name}: {new} {meaning}, down from {old}: a gain that nothing holds yet.")
    return sorted(sentences)


if __name__ == "__main__":
    found = {name: counts(case.ours) for name, case in cases().items()}
    print(json.dumps({"versions": versions(), "import": packages.import_counts(), "counts": found}))
