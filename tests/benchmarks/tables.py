# SPDX-License-Identifier: Apache-2.0
"""Results as tables of Markdown: each value of the first contender, and in how many times of the other it is."""

import math
from collections.abc import Iterable, Sequence

from .cases import ANEW, BANDWIDTH, in_the_mean
from .measures import COUNTED, TIMED, Result

TIMES = [m for m in TIMED if m not in ("restored", "construct")]


def geometric_mean(ratios: Iterable[float]) -> float:
    found = list(ratios)
    return math.prod(found) ** (1 / len(found))


def seconds(x: float) -> str:
    """With the unit that suits, and three digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if x * factor >= 1:
            return f"{x * factor:.3g} {unit}"
    return f"{x * 1e6:.3g} µs"


def count(x: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if x >= size:
            return f"{x / size:.3g} {unit}"
    return f"{x:,.0f}"


def ratio(x: float) -> str:
    return f"{x:.3g}" if x >= 10 else f"{x:.2f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def value(measure: str, x: float) -> str:
    return seconds(x) if measure in TIMED else count(x)


def cell(result: Result, measure: str, name: str) -> str:
    """What a contender takes, and in parentheses its ratio; nothing where it takes no part."""
    x = result.values.get(measure, {}).get(name)
    return "" if x is None else f"{value(measure, x)} ({ratio(result.ratios[measure][name])})"


def beside(results: Sequence[Result], measures: Sequence[str]) -> str:
    """A row for each case: what the contender takes, and in parentheses its ratio."""
    found = [m for m in measures if any(m in r.values for r in results)]
    rows = []
    for r in results:
        cells = [cell(r, m, next(iter(r.values[m]))) for m in found]
        rows.append([f"`{r.case}`" + ("" if r.over == "optax" else f" over {r.over}"), *cells])
    return table(["", *found], rows) if found else ""


def means(results: Sequence[Result], measures: Sequence[str]) -> str:
    """The geometric means over the cases that stand for all, and the worst of them."""
    rows = []
    for measure in measures:
        found = {r.case: x for r in results if in_the_mean(r.case) and (x := r.ratio(measure)) is not None}
        if found:
            worst = max(found, key=lambda case: found[case])
            mean = geometric_mean(found.values())
            rows.append([measure, str(len(found)), f"{mean:.2f}", f"{found[worst]:.2f}, `{worst}`"])
    return table(["over Optax", "cases", "geometric mean", "worst"], rows) if rows else ""


def contenders(result: Result, measures: Sequence[str]) -> str:
    """A row for each contender of one case."""
    found = [m for m in measures if m in result.values]
    rows = []
    for name in dict.fromkeys(name for m in found for name in result.values[m]):
        rows.append([name, *(cell(result, m, name) for m in found)])
    return table([f"`{result.case}`", *found], rows) if found else ""


def steps(results: Sequence[Result]) -> str:
    """Who else took part: gradtx's step in times of each other's. The loop that moves the same bytes comes last."""
    names = list(dict.fromkeys(name for r in results for name in r.values.get("step", {})))
    others = sorted((x for x in names if x != "gradtx"), key=lambda x: x == BANDWIDTH)
    rows = []
    for r in results:
        if (found := r.values.get("step")) and len(found) > 2:
            over = [f"{seconds(found[x])} ({ratio(r.against['step'][x])})" if x in found else "" for x in others]
            rows.append([f"`{r.case}`", seconds(found["gradtx"]), *over])
    return table(["step", "gradtx", *others], rows) if rows else ""


def bandwidth(results: Sequence[Result]) -> str:
    """The memory-bound steps in times of what moving their bytes takes; the program's bytes in times of the floor."""
    rows = []
    for r in results:
        found = r.values.get("step", {})
        if BANDWIDTH in found:
            row = [f"`{r.case}`", ratio(r.against["step"][BANDWIDTH]), ratio(found["optax"] / found[BANDWIDTH])]
            if "floor" in r.values and "moved" in r.values:
                floor = r.values["floor"]["gradtx"]
                row += [f"{floor / 2**30:.2f} GiB", *(ratio(r.values["moved"][x] / floor) for x in ("gradtx", "optax"))]
                row += [f"{floor / found[BANDWIDTH] / 1e9:.1f} GB/s"]
            rows.append(row)
    if not rows:
        return ""
    header = ["one leaf", "step / copy", "Optax's", "floor", "moved / floor", "Optax's", "copy"]
    return table(header[: len(rows[0])], rows)


def rates(results: Sequence[Result]) -> str:
    """Each step in times of a loop that moves the floor; then what its program moves, and pages, in place and not."""
    names = dict.fromkeys(name for r in results for name in (*r.values.get("step", {}), *r.values.get("moved", {})))
    names.pop(BANDWIDTH, None)
    rows = []
    for r in results:
        steps, moved, floor, pages = (r.values.get(m, {}) for m in ("step", "moved", "floor", "pages"))
        cells = [ratio(r.ratios["step"][name]) if name in steps else "" for name in names]
        over = [f"{moved[x] / floor[x]:.2f}" if x in moved and x in floor else "" for x in ("gradtx", ANEW)]
        rate = f"{floor['gradtx'] / steps[BANDWIDTH] / 1e9:.1f} GB/s" if floor and BANDWIDTH in steps else ""
        handed_out = [f"{pages[x]:,.0f}" if x in pages else "" for x in ("gradtx", ANEW)]
        rows.append([f"`{r.case}`", *cells, rate, *over, *handed_out])
    beside = ["moved / floor", ANEW, "pages", ANEW]
    return table(["step / copy", *names, "copy", *beside], rows) if rows else ""


def page(results: Sequence[Result]) -> str:
    """All tables."""
    parts = []
    for name in dict.fromkeys(r.table for r in results):
        found = [r for r in results if r.table == name]
        parts.append(f"## {name}\n")
        if name == "floor":
            parts.append(rates(found))
            continue
        if name in ("packed", "stacks", "groups", "moments"):
            parts += [contenders(r, [*TIMED, *COUNTED]) for r in found]
            continue
        if name == "first-order":
            parts += [means(found, [*TIMED, *COUNTED]), bandwidth(found)]
        parts += [beside(found, TIMES), beside(found, ["construct", *COUNTED]), steps(found)]
    return "\n".join(x for x in parts if x)
