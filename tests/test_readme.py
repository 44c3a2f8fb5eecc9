# SPDX-License-Identifier: Apache-2.0
"""The Python blocks of the README and the docs run, and print what the pages say.

The blocks of a page share a namespace. A comment behind a `print` is its output; so is a `text` block after a block.
"""

import re
import sys
import types
from pathlib import Path

import pytest

from gradtx.core import _factory as factory
from support.loggers import stand_in

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if BLOCK.search(p.read_text())]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")  # JAX as a reader has it, and code of Flax and Equinox
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_python_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)  # where pages save
    stand_in(monkeypatch)  # for the loggers of a page
    # A module that can be imported, as what a page defines is pickled by name; a copy of the registry, as what it
    # registers is nobody else's.
    module = types.ModuleType(re.sub(r"\W", "_", name(page)))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(factory, "REGISTRY", dict(factory.REGISTRY))
    text = page.read_text()
    for block in BLOCK.finditer(text):
        code, output = block.groups()
        # Compiled with the line numbers of the page.
        lines = text[: block.start(1)].count("\n")
        exec(compile("\n" * lines + code, name(page), "exec"), module.__dict__)
        said = output if output is not None else "".join(f"{line}\n" for line in COMMENT.findall(code))
        printed = capsys.readouterr().out
        assert printed == said or not said, f"the output of the block at {name(page)}:{lines}"


def test_the_pages_are_found():
    assert {"README.md", "docs/quickstart.md", "docs/write_your_own.md", "docs/choosing.md"} <= {name(p) for p in PAGES}


LINKED = [ROOT / "README.md"]
LINKED += [ROOT / "docs" / f"{page}.md" for page in ("quickstart", "choosing", "matrix_optimizers", "catalogue")]


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_what_a_page_links_to_is_there(page: Path):
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").glob("*.png")), ids=name)
def test_pictures_are_small(picture: Path):
    assert picture.stat().st_size < 200_000
