# SPDX-License-Identifier: Apache-2.0
"""What the pages of the site have beyond Markdown: an extension of Python-Markdown, which every builder of sites runs.

- Lines `@names ...` become entries of the reference, see `reference.py`.
- Formulas are typeset, see `formulas.py`: in fenced blocks without a language, and in tables as code behind a line
  break or in a column named so.
- A public name in `code` leads to its entry, the first time in each section.
- `arXiv:` and a number lead to the paper.
- Pictures lead to their files, where they can be enlarged.
"""

import re
import xml.etree.ElementTree as etree
from html import unescape

from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from markdown.treeprocessors import Treeprocessor
from markdown.util import ETX, STX, AtomicString

from docs import formulas, reference


class Names(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        return reference.ASK.sub(reference.section, "\n".join(lines)).split("\n")


class Formulas(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        return formulas.FENCE.sub(self.typeset, "\n".join(lines)).split("\n")

    def typeset(self, match: re.Match) -> str:
        html = formulas.block(match[1])
        return match[0] if html is None else self.md.htmlStash.store(f'<div class="formula">{html}</div>')


class FormulasInTables(Treeprocessor):
    def run(self, root: etree.Element) -> None:
        for table in root.iter("table"):
            heads = [head.text for head in table.iter("th")]
            if "formula" in heads:
                for row in table.iterfind("tbody/tr"):
                    cell = row[heads.index("formula")]
                    self.typeset(cell, re.sub(f"{STX}(\\d+){ETX}", lambda m: chr(int(m[1])), cell.text or ""))
        for cell in root.iter("td"):
            before = cell.text or ""
            for child in cell:
                if child.tag == "code" and before.endswith(ETX):  # behind HTML, which is <br>
                    self.typeset(child, unescape(child.text or ""))
                before = child.tail or ""

    def typeset(self, parent: etree.Element, text: str) -> None:
        html = formulas.block(text)
        if html is not None:
            parent.tag = "span" if parent.tag == "code" else parent.tag
            parent.text = AtomicString(self.md.htmlStash.store(f'<span class="formula">{html}</span>'))


def wrap(parent: etree.Element, i: int, tag: str, attributes: dict[str, str]) -> None:
    child = parent[i]
    parent[i] = around = etree.Element(tag, attributes)
    around.tail, child.tail = child.tail, None
    around.append(child)


class Links(Treeprocessor):
    def run(self, root: etree.Element) -> None:
        self.linked: set[str] = set()
        self.visit(root)

    def visit(self, parent: etree.Element) -> None:
        for i, child in enumerate(parent):
            if re.fullmatch("h[1-6]", child.tag):
                self.linked.clear()
            elif child.tag == "img":
                wrap(parent, i, "a", {"href": child.get("src", ""), "title": "Enlarge"})
            elif child.tag == "code" and (path := reference.targets().get(self.called(child))):
                if path not in self.linked:
                    wrap(parent, i, "autoref", {"identifier": path, "optional": ""})  # which mkdocstrings resolves
                self.linked.add(path)
            elif child.tag not in ("a", "pre", "autoref"):
                self.visit(child)

    def called(self, code: etree.Element) -> str:
        """`adam` of `adam(1e-3)`."""
        return re.sub(r"\(.*\)$", "", code.text or "", flags=re.DOTALL)


class Papers(InlineProcessor):
    ANCESTOR_EXCLUDES = ("a",)

    def handleMatch(self, match: re.Match, data: str):
        link = etree.Element("a", {"href": f"https://arxiv.org/abs/{match[1]}"})
        link.text = AtomicString(match[0])
        return link, match.start(0), match.end(0)


class PagesExtension(Extension):
    def extendMarkdown(self, md):
        md.preprocessors.register(Names(md), "names", 40)  # first of all
        md.preprocessors.register(Formulas(md), "formulas", 28)  # before fenced blocks become code
        md.inlinePatterns.register(Papers(r"arXiv:(\d{4}\.\d{4,5})", md), "papers", 50)
        md.treeprocessors.register(FormulasInTables(md), "formulas_in_tables", 15)  # behind inline patterns
        md.treeprocessors.register(Links(md), "links", 5)  # before addresses become those of the site


def makeExtension(**options):
    return PagesExtension(**options)
