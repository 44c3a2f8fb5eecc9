# SPDX-License-Identifier: Apache-2.0
"""What pages have beyond Markdown: links of names, papers and pictures, and formulas."""

import sys

import pytest

from support.site import DOCS

markdown = pytest.importorskip("markdown")


def html(text: str) -> str:
    sys.path.insert(0, str(DOCS.parent))
    try:
        return markdown.markdown(text, extensions=["tables", "docs.pages"]).replace('" optional=""', '"')
    finally:
        sys.path.remove(str(DOCS.parent))


def linked(path: str, code: str) -> str:
    return f'<autoref identifier="gradtx.{path}"><code>{code}</code></autoref>'


def test_a_name_leads_to_its_entry_once_in_a_section():
    said = html("# On `adam`\n\n`adam(1e-3)`, `adam`, `tree.add`, [`sgd`](x.md)\n\n## Next\n\n`adam`")
    assert linked("adam", "adam(1e-3)") + ", <code>adam</code>, " + linked("tree.add", "tree.add") in said
    assert linked("adam", "adam") in said.partition("Next")[2]
    assert said.count("autoref ") == 3


def test_names_of_arguments_lead_nowhere_by_themselves():
    assert html("`where`, `gradtx.where`") == f"<p><code>where</code>, {linked('where', 'gradtx.where')}</p>"


def test_papers_and_pictures():
    assert '<a href="https://arxiv.org/abs/1711.05101">arXiv:1711.05101</a>,' in html("In arXiv:1711.05101, ...")
    assert html("[arXiv:1711.05101](x)").count("<a ") == 1
    assert '<a href="x.png" title="Enlarge"><img alt="a" src="x.png" /></a>' in html("![a](x.png)")
    assert html("[![a](x.png)](y)").count("<a ") == 1


def test_formulas_in_blocks_and_tables():
    assert "<mfrac><mi>a</mi><mi>b</mi></mfrac>" in html("```\nu = a / b\n```")
    assert "<mfrac>" not in html("```text\nu = a / b\n```")
    table = html("| formula | more |\n|---|---|\n| u = a / \\|g\\| | said<br>`u = c / d` `e / f` |")
    assert table.count("<mfrac>") == 2 and "<mo>|</mo>" in table and "<code>e / f</code>" in table


def test_names_become_entries():
    said = html("@names gradtx.losses")
    assert "::: gradtx.losses.l2_loss" in said and "Regression losses" in said
