# SPDX-License-Identifier: Apache-2.0
"""The check in a browser finds what it is made for: a small site with a fault of each kind."""

from pathlib import Path

import pytest

from docs import browser

PAGE = '<!doctype html><title>{0}</title><link rel="icon" href="data:,"><article><p id="here">{0}</p>{1}</article>'
PAGES = {
    "": '<a href="fine/">fine</a> <a href="fine/#here">here</a> <a href="wide/">wide</a>',
    "fine": '<a href="../chain/">on</a><div class="doc-signature"><code>f(x)</code></div>',
    "wide": '<div style="width: 600px">wide</div>',
    "cut": '<div class="doc-signature" style="width: 90px"><code style="display: block; overflow: auto">'
    "a_function_with_a_very_long_name(argument)</code></div>",
    "links": '<a href="../nowhere/">there</a> <a href="../fine/#nothing">there</a> <a href="../file.txt">file</a>',
    "pictures": '<img src="../gone.png"><img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAAC">',
    "noise": "<script>console.error('so loud')</script><script>undefined.x</script>",
    "network": '<script>fetch("http://192.0.2.1/").catch(() => 0)</script>',
    "chain": '<a href="../far/">on</a>',
    "far": "",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, body in PAGES.items():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "index.html").write_text(PAGE.format(name, body))
    (tmp_path / "file.txt").write_text("a file")
    return tmp_path


@pytest.mark.skipif(browser.chromium() is None, reason="needs chromium and playwright")
def test_faults_are_found(site: Path):
    with browser.browser() as program, browser.served(site) as home:
        complaints = browser.look(program, site, home)
    said = "\n".join(complaints).replace(home, "")
    for complaint in (
        "wide/ at 390 pixels is 6",
        "cut/ at 1280 pixels cuts the signature a_function_with_a_very_long_name",
        "links/ links to nowhere/, which is not there",
        "links/ links to fine/#nothing, which is not there",
        "pictures/ at 390 pixels lacks the picture gone.png",
        "pictures/ asks for gone.png, which is 404",
        "pictures/ at 1280 pixels does not enlarge the picture data:",
        "noise/ says 'so loud' on the console",
        "noise/ raises ",
        "network/ needs http://192.0.2.1/",
        "far/ is more than 2 clicks from home",
    ):
        assert complaint in said, said
    assert not any(c.startswith(("fine/", "/ ", "chain/", "wide/ at 1280")) for c in complaints), said


def test_distance_from_home():
    links = {"/": ["a/", "b/#x"], "a/": ["c/"], "b/": ["/"], "c/": ["d/"], "d/": []}
    assert browser.far(links) == ["d/ is more than 2 clicks from home"]
