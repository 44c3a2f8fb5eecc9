# SPDX-License-Identifier: Apache-2.0
"""How many bad calls there are, and how they are answered: the figures of docs/reliability.md.

python tests/bad_calls.py              the table, a row for each namespace, Optax's answers to the same calls beside
python tests/bad_calls.py gradtx.adam  each call of the callables whose path begins so, with its answer
"""

import collections
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

# Read when JAX makes its backend: some calls are of meshes.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import optax  # noqa: E402  # after the environment is set
import optax.assignment  # noqa: E402
import optax.contrib  # noqa: E402
import optax.perturbations  # noqa: E402

from gradtx.core._transformation import is_transformation  # noqa: E402
from support.bad_calls import Answer, Bad, answer, answer_of, bad_calls, plain  # noqa: E402
from support.good_calls import GOOD, Good  # noqa: E402
from support.legal_calls import parameter_of, reason_of  # noqa: E402

PLACES = (optax, optax.contrib, optax.losses, optax.projections, optax.tree, optax.assignment, optax.perturbations)


def counterpart(path: str) -> Callable[..., Any] | None:
    """The function of Optax with this name, in the namespace of the same name or at its top level."""
    place, _, name = path.removeprefix("gradtx.").rpartition(".")
    places = [p for p in PLACES if p.__name__ == f"optax.{place}"] if place in ("tree",) else list(PLACES)
    found = [getattr(p, name) for p in places if callable(getattr(p, name, None))]
    return found[0] if found else None


def good_for_optax(path: str, good: Good) -> Good | None:
    """The good call, with the arguments that Optax has; None if it is no good call there."""
    function = counterpart(path)
    if function is None or inspect.isclass(function):
        return None
    try:
        names = set(inspect.signature(function).parameters)
        defaults = inspect.signature(good.function).parameters
        kept = {n: x for n, x in good.arguments.items() if n in names and not same(x, defaults[n].default)}
        theirs = Good(function, kept, good.on_values)
        plain(theirs)
    except Exception:  # whatever it is, there is nothing to compare
        return None
    return theirs


def same(x: Any, y: Any) -> bool:
    """Whether an argument is the default, so that it need not be given."""
    return x is y or type(x) is type(y) and isinstance(x, int | float | str) and x == y


def theirs(call: Bad, good: Good) -> Answer | None:
    """What Optax says to the same call: "refused" by an error of its own that names the argument."""
    if call.argument not in inspect.signature(good.function).parameters or is_transformation(call.value):
        return None
    return answer_of(call._replace(good=good), "optax", "chex", names_the_callable=False)


def main(begin: str = "") -> None:
    ours, others = collections.defaultdict(collections.Counter), collections.Counter()
    for path, good in GOOD.items():
        if not path.startswith(begin):
            continue
        of_optax = good_for_optax(path, good)
        for call in bad_calls(path, good):
            found = answer(call)
            kind = found.kind
            if kind != "refused":
                reason = reason_of(parameter_of(path, good.function, call.argument), call.label, call.value)
                kind = kind if reason is None else "legal"
            if begin:
                print(f"{kind:9} {call} {found.said}")
            ours[path.rpartition(".")[0]][kind] += 1
            if kind == "refused" and of_optax is not None and (said := theirs(call, of_optax)) is not None:
                others[said.kind] += 1
    total = sum(ours.values(), collections.Counter())
    print("| namespace | calls | refused by name | legal, with a reason | opaque | silent |\n|---|---|---|---|---|---|")
    for place, counts in [*sorted(ours.items()), ("all", total)]:
        row = [counts[kind] for kind in ("refused", "legal", "opaque", "accepted")]
        print(f"| {place} | {' | '.join(f'{n:,}' for n in (counts.total(), *row))} |")
    print(
        f"\nOf {others.total():,} calls that gradtx refuses and Optax {optax.__version__} has too, Optax refuses "
        f"{others['refused']:,} by the name of the argument, fails at {others['opaque']:,} with an error from "
        f"inside, and accepts {others['accepted']:,}."
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
