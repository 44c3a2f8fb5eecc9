# SPDX-License-Identifier: Apache-2.0
"""Writes docs/catalogue.md out of the registry: what each factory does, where it comes from, what it keeps and needs.

    python docs/catalogue.py            writes the page
    python docs/catalogue.py --check    fails if the page is not what it would write

A new factory is on the page by itself. What is said of it comes from its signature, its docstring and from tracing it:

- The update is the first sentence of the docstring, and the statement about `u` (or `p`) in its first fenced block;
  without a block, that of the rule which the docstring names ("See `scale_by_adam` for the formula").
- The source is every arXiv number of the docstring; without any, the first author and year behind "Reference:".
- Memory is measured by `describe`. What `update` needs is read off the rule, or found by leaving out arguments.
- A recipe whose module is in no family of `FAMILIES` is in the last one.
"""

import argparse
import html
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from docs import reference  # noqa: E402
from gradtx import describe  # noqa: E402
from gradtx.core._calls import Factory  # noqa: E402
from gradtx.core._factory import REGISTRY  # noqa: E402
from gradtx.core._ranges import is_number  # noqa: E402
from gradtx.core._transformation import is_transformation  # noqa: E402
from support import registry  # noqa: E402  # it has an example of every factory

COMMAND = "python docs/catalogue.py"
PAGE = ROOT / "docs" / "catalogue.md"
IMAGES = ROOT / "docs" / "images"

PARAMS = {"w": jax.ShapeDtypeStruct((1024, 4096), jnp.float32), "b": jax.ShapeDtypeStruct((4096,), jnp.float32)}
"""The tree on which memory is measured."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "Descent, momentum, noise": (
        *("sgd", "aggmo", "qhm", "asgd", "optimistic", "delta_bar_delta", "sgd_sai"),
        *("noisy_sgd", "dpsgd"),
    ),
    "Adam and its relatives": (
        *("adam", "nadam", "adamax", "amsgrad", "radam", "adabelief", "acprop", "yogi", "laprop"),
        *("adamod", "adabound", "diffgrad", "adamp"),
    ),
    "Momentum in other forms": ("adan", "ademamix", "simplified_ademamix", "adopt", "mars", "grams", "stable_adamw"),
    "Sums and means of squares": ("adagrad", "rmsprop", "adadelta", "madgrad", "ftrl", "novograd"),
    "Signs and clipped steps": ("signsgd", "lion", "rprop", "sophia", "sophia_g"),
    "Large batches": ("lars", "lamb", "fromage", "hyperball"),
    "Little memory": ("sm3", "adafactor", "came", "adam_mini", "apollo", "fira", "galore"),
    "Learning rates that adapt": (
        *("polyak", "momo", "dog", "dowg", "cocob", "prodigy", "adamg"),
        *("dadapt", "dadapt_adan", "dadapt_lion", "dadapt_sgd"),
    ),
    "Averages instead of schedules": ("schedule_free", "schedule_free_plus", "gpa"),
    "Curvature and matrices": (
        *("lbfgs", "muon", "normuon", "adamuon", "polargrad", "aurora", "scion", "dion"),
        *("shampoo", "soap", "kl_shampoo", "kl_soap", "splus", "psgd_kron"),
    ),
    "More": (),
}
"""The modules of gradtx.optimizers by what their recipes have in common; the last family takes all others."""

INTRODUCTION = f"""\
# Catalogue

Every transformation of gradtx: what it does, where it comes from, what it keeps and what it needs. What to take for
what is in [How to choose](choosing.md). `{COMMAND}` writes this page out of signatures and docstrings and
measures the rest; a test fails when it is out of date.

- **Update**: one line says what becomes of the gradient `g` or of the parameter `p`. All lines of the formula are
  behind the name, in the letters of the [reference](api/index.md).
- **Bytes** of state for each element of the parameters, with default arguments, where the parameters are
  `{{"w": (1024, 4096), "b": (4096,)}}` in float32. Step counts and other scalars do not show in it.
- **Needs**: arguments without which `update` raises an error, besides gradients and state.

In the pictures, each recipe has 300 steps from the white dot. Of its paths with several rates, the one with the least
mean logarithm of the loss is drawn. Names that share a line have the same path, as methods have that differ on matrices
only. `python docs/trajectories.py` draws them.
"""


class Row(NamedTuple):
    """What the page says of one factory, as Markdown; the fields are the columns."""

    call: str
    update: str
    source: str
    bytes: str
    needs: str


def row(record: Factory, tx: Any, extra: dict[str, Any]) -> Row:
    """The row of a factory, from its record, an example of it and the extra arguments that fit the example."""
    doc = inspect.getdoc(record.body) or ""
    return Row(call(record), update(doc), source(doc), memory(tx), ", ".join(map(code, needs(tx, extra))) or "–")


# Signatures and docstrings.


def call(record: Factory) -> str:
    """The name, as a link to the reference, and the arguments with those defaults that are numbers."""
    shown = []
    for p in record.signature.parameters.values():
        if p.default is p.empty:
            shown.append(f"*{p.name}" if p.kind is p.VAR_POSITIONAL else p.name)
        elif is_number(p.default):
            shown.append(f"{p.name}={p.default:g}".replace("e-0", "e-").replace("e+0", "e"))
    place = reference.places().get(record.name)
    name = f"[{code(record.name)}](api/{place})" if place else code(record.name)
    return " ".join([name, *([code(", ".join(shown))] if shown else [])])


def update(doc: str) -> str:
    """The first sentence and the formula: the docstring's own, or that of the rule it names for it."""
    named = re.search(r"[Ss]ee `(\w+)` for", doc)
    rules = {f.name: f for f in REGISTRY.values()}
    said = formula(doc)
    if said is None and named and named[1] in rules:
        said = formula(inspect.getdoc(rules[named[1]].body) or "")
    return text(first_sentence(doc)) + (f"<br>{code(said)}" if said else "")


def formula(doc: str) -> str | None:
    """What the first fenced block says of `u` or `p`, or what it says last; None without a block."""
    block = re.search(r"```\n(.*?)```", doc, re.DOTALL)
    if block is None:
        return None
    lines = [line.strip() for line in block[1].splitlines() if line.strip()]
    # Two statements on a line have room between them.
    parts = [part for line in lines for part in re.split(r" {2,}(?=[^ =]{1,12} += )", line)]
    statements = [re.sub(r" +", " ", part) for part in parts]
    said = {re.split(r" (?:=|<-|←) ", s)[0]: s for s in statements}
    last = next((said[n] for n in ("p", "u", "θ", "x") if n in said), statements[-1])
    meant = re.fullmatch(r"\w+ (?:=|<-|←) (\w+)", last)  # u = mu
    return said.get(meant[1], last) if meant else last


def first_sentence(doc: str) -> str:
    paragraph = " ".join(doc.partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", paragraph)[0].rstrip(".:") if paragraph else "–"


def source(doc: str) -> str:
    numbers = dict.fromkeys(re.findall(r"arXiv:(\d{4}\.\d{4,5})", doc))
    if numbers:
        return ", ".join(f"[{n}](https://arxiv.org/abs/{n})" for n in numbers)
    behind = re.search(r"^References?: +(\w[^\n,]*?\d{4})", doc, re.MULTILINE)
    return text(behind[1]) if behind else "–"


def code(words: str) -> str:
    # A bar would end the cell of a table, even inside backquotes.
    return f"<code>{html.escape(words, quote=False).replace('|', '&#124;')}</code>" if "|" in words else f"`{words}`"


def text(words: str) -> str:
    """The words with what Markdown would read as something else escaped; code in backquotes stays."""
    parts = re.split(r"(`[^`]*`)", words)
    plain = [p if p.startswith("`") else re.sub(r"([*_<\[\]\\])", r"\\\1", p).replace("|", "&#124;") for p in parts]
    return "".join(plain)


# What is found by tracing. Nothing is computed.


def memory(tx: Any) -> str:
    """Bytes of state for each element of the parameters; what a wrapper adds to that of what it wraps."""
    inner = [x for x in jax.tree.leaves(dict(tx.arguments), is_leaf=is_transformation) if is_transformation(x)]
    own = (describe(tx, PARAMS).bytes_per_element or 0) - sum(describe(x, PARAMS).bytes_per_element or 0 for x in inner)
    if not inner:
        return number(own)
    # A mask leaves some of the inner state out.
    return "its parts'" if own < 0.005 else f"its parts' + {number(own)}"


def number(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".")


def needs(tx: Any, extra: dict[str, Any]) -> list[str]:
    """The arguments without which `update` fails, besides gradients and state."""
    rule = tx.rule
    if rule is not None:
        return [*(["params"] if rule.needs_params else []), *rule.needs]
    return needs_by_trial(tx, extra)


def needs_by_trial(tx: Any, extra: dict[str, Any]) -> list[str]:
    arguments = {"params": registry.PARAMS, **extra}
    examples = jax.tree.map(lambda g: jnp.stack([g, g]), registry.GRADIENTS)
    gradients = registry.GRADIENTS if works(tx, registry.GRADIENTS, arguments) else examples
    attempt(tx, gradients, arguments)  # its error is worth seeing
    return [n for n in arguments if not works(tx, gradients, {k: v for k, v in arguments.items() if k != n})]


def works(tx: Any, gradients: Any, arguments: dict[str, Any]) -> bool:
    try:
        attempt(tx, gradients, arguments)
    except (ValueError, TypeError):
        return False
    return True


def attempt(tx: Any, gradients: Any, arguments: dict[str, Any]) -> None:
    """Traces one update with these arguments besides gradients and state."""
    state = jax.eval_shape(tx.init, registry.PARAMS)
    jax.eval_shape(lambda g, s: tx.update(g, s, **arguments), gradients, state)


# The page.


def kind(record: Factory) -> str:
    package = record.module.split(".")[1]
    if package == "optimizers":
        return "rule" if record.name.startswith("scale_by_") else "recipe"
    return {"recipes": "run", "wrappers": "wrapper", "sharding": "wrapper", "core": "combinator"}.get(package, "stage")


def family(record: Factory) -> str:
    module = record.module.split(".")[2].removeprefix("_")
    return next((name for name, modules in FAMILIES.items() if module in modules), list(FAMILIES)[-1])


def slug(title: str) -> str:
    return re.sub(r"\W+", "_", title.lower()).strip("_")


def heading(module: str) -> str:
    """The first line of a module's docstring, what follows a colon as text below."""
    title, _, rest = (inspect.getdoc(sys.modules[module]) or module).partition("\n")[0].rstrip(".").partition(": ")
    return f"### {title}" + (f"\n\n{rest[0].upper()}{rest[1:]}." if rest else "")


def example(record: Factory) -> Any:
    if record.name in registry.WITHOUT_EXAMPLE:
        raise TypeError(f"{record.name} has no example: give it a line in EXPLICIT of tests/support/registry.py")
    return registry.example(record.name)


def table(title: str, records: Iterable[Factory]) -> str:
    found = [row(f, example(f), registry.extra_arguments(f.name)) for f in records]
    lines = [[title, *Row._fields[1:]], ["---"] * len(Row._fields), *found]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def grouped(records: list[Factory], key: Callable[[Factory], str]) -> dict[str, list[Factory]]:
    groups: dict[str, list[Factory]] = {}
    for record in sorted(records, key=lambda f: f.name):
        groups.setdefault(key(record), []).append(record)
    return groups


def page() -> str:
    records = grouped(list(registry.FACTORIES.values()), kind)
    parts = [INTRODUCTION, "## Recipes", "Whole optimizers: chains of stages with a learning rate."]
    families = grouped(records["recipe"], family)
    for title in FAMILIES:
        if title in families:
            drawn = [f"![Paths of recipes on two functions: {title}](images/{p.name})" for p in pictures(title)]
            parts += [f"### {title}", *drawn, table("recipe", families[title])]
    parts += ["## Rules", "The stages that find the direction, for chains of your own."]
    parts += [table("rule", records["rule"])]
    parts += ["## Runs", "The optimizers of [known runs](recipes.md), in `gradtx.recipes`."]
    parts += [table("run", records["run"])]
    for title, name, say in (
        ("Stages", "stage", "What else a chain is made of."),
        ("Wrappers", "wrapper", "Transformations of transformations."),
        ("Combinators", "combinator", "What puts transformations together."),
    ):
        parts += [f"## {title}", say]
        by_module = grouped(records[name], lambda f: f.module)
        for module in sorted(by_module):
            parts += [heading(module), table(name, by_module[module])]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def pictures(title: str) -> list[Path]:
    """The pictures that docs/trajectories.py drew of a family."""
    names = re.compile(rf"family_{slug(title)}(_\d+)?\.png")
    return sorted(path for path in IMAGES.glob("*.png") if names.fullmatch(path.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    check = parser.parse_args().check
    new = page()
    old = PAGE.read_text() if PAGE.exists() else ""
    if check and new != old:
        sys.exit(f"docs/catalogue.md is out of date: run `{COMMAND}`")
    if not check:
        PAGE.write_text(new)


if __name__ == "__main__":
    main()
