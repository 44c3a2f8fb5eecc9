# SPDX-License-Identifier: Apache-2.0
"""The layout of every factory's state: paths, shapes and dtypes; `golden_states.json` has those of each release.

    python -m tests.support.golden_states              says what differs from the file
    python -m tests.support.golden_states --record     adds what is new, and what has changed since an older version

A checkpoint knows nothing else of a state, so one whose layout is as recorded loads. The file has a layout of a factory
for each version in which it changed. A layout of the version at hand is never overwritten: who changes one raises the
version in gradtx/_version.py first. `tests/state/test_golden_states.py` compares, and loads the older ones.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

import jax

import gradtx
from gradtx import precision
from gradtx._version import __version__
from gradtx.testing._compare import type_name
from support.registry import FACTORIES, PARAMS, WITHOUT_EXAMPLE, example

FILE = Path(__file__).with_name("golden_states.json")
RECORD = "python -m tests.support.golden_states --record"

Layout = dict[str, str]
"""The type of each array of a state, by its path."""

CODECS = {
    "bfloat16": precision.bfloat16(),
    "companded8": precision.companded8(2),
    "float8": precision.float8(),
    "int4": precision.int4(2),
    "int8": precision.int8(2),
}
MORE: dict[str, Callable[[], Any]] = {
    **{
        f"stored {n}": lambda c=c: gradtx.stored(gradtx.trace(0.9), {"trace": [("w", c)]}, min_size=0)
        for n, c in CODECS.items()
    },
    "stored symmetric": lambda: gradtx.stored(gradtx.shampoo(0.01), {"factors": precision.symmetric()}, min_size=0),
    "masked with None": lambda: gradtx.masked(gradtx.adam(0.1), {"w": True, "b": False}),
    "adam with a schedule": lambda: gradtx.adam(gradtx.cosine_decay_schedule(0.1, 10)),
}
"""Layouts that arguments decide rather than the factory."""

MADE: dict[str, Callable[[], Any]] = {n: lambda n=n: example(n) for n in FACTORIES if n not in WITHOUT_EXAMPLE} | MORE


def layout_of(tx: Any) -> Layout:
    state = jax.tree_util.tree_leaves_with_path(jax.eval_shape(tx.init, PARAMS))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): type_name(x) for path, x in state}


def recorded() -> dict[str, dict[str, Layout]]:
    """By name and version, the oldest first."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def differences(name: str, versions: dict[str, Layout], now: Layout) -> Iterator[str]:
    """What differs from the last layout, a sentence for each array."""
    version, then = list(versions.items())[-1]
    for path in dict.fromkeys([*then, *now]):
        if (old := then.get(path, "not there")) != (new := now.get(path, "gone")):
            yield f"{name}: the state at {path or 'the root'} was {old} in {version}, and is {new}"


def advice(version: str) -> str:
    """What is to be done about a layout that is not as `version` has it."""
    if version == __version__:
        return (
            f"states keep their layout within a version: raise that of gradtx/_version.py and run `{RECORD}`, or, if "
            f"{version} is not released yet, delete the entry in {FILE.name} first"
        )
    return f"run `{RECORD}`, and say in CHANGELOG.md how states of {version} are loaded"


def fault(name: str, versions: dict[str, Layout] | None, now: Layout) -> str | None:
    """One sentence about a layout that is not the recorded one, and what is to be done."""
    if not versions:
        return f"{name} has no recorded layout: run `{RECORD}`"
    found = list(differences(name, versions, now))
    if not found:
        return None
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0]}{more}; {advice(list(versions)[-1])}"


def older(known: dict[str, dict[str, Layout]]) -> list[tuple[str, str, Layout]]:
    """(name, version, layout) of all that were changed since."""
    return [(n, v, x) for n, versions in known.items() for v, x in list(versions.items())[:-1]]


def main(record: bool) -> int:
    known, faults = recorded(), []
    for name, make in MADE.items():
        versions, now = known.get(name), layout_of(make())
        if (sentence := fault(name, versions, now)) is None:
            continue
        if record and __version__ not in (versions or {}):
            known.setdefault(name, {})[__version__] = now
        else:
            faults.append(sentence)
    if record:
        lines = [f" {json.dumps(n)}: {json.dumps(known[n])}" for n in sorted(known)]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(*faults, f"{len(known)} states, {len(older(known))} older layouts", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main("--record" in sys.argv[1:]))
