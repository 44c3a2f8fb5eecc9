# SPDX-License-Identifier: Apache-2.0
"""The site: every page stands in its navigation once, and what a page calls by name is there."""

import re

from support.site import DOCS, script

reference = script("reference")


def test_every_page_is_in_the_navigation_once():
    navigation = (DOCS.parent / ".mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r": ([\w/]+\.md)$", navigation, re.MULTILINE)
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")}
    assert sorted(listed) == sorted(pages)


def test_every_public_name_is_on_a_page_of_the_reference():
    assert [name.path for name in reference.public() if reference.claimed_by(name) is None] == []


def test_functions_that_pages_name_are_there():
    """`gradtx.name` in any page, in code or not."""
    import gradtx
    import gradtx.compat.optax
    import gradtx.plot  # loads on first use
    import gradtx.race
    import gradtx.testing
    import gradtx.verify

    missing = []
    for page in DOCS.rglob("*.md"):
        for path in re.findall(r"\bgradtx((?:\.[A-Za-z]\w*)+)", page.read_text()):
            if path == ".X":  # any name
                continue
            found = gradtx
            for name in path[1:].split("."):
                found = getattr(found, name, None)
            missing += [f"{page.name}: gradtx{path}"] if found is None else []
    assert missing == []
