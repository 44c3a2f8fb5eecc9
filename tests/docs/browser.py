# SPDX-License-Identifier: Apache-2.0
"""Looks at every page of the built site in Chromium, on a wide screen and on that of a telephone.

    python tests/docs/browser.py SITE [--pictures FOLDER]

A page must fit into the window, its signatures too; links within the site lead somewhere; pictures load; the console
stays quiet; nothing is asked of another host, as the site works without a network; no page is more than two clicks from
home; and what people search for comes first. Needs playwright, and chromium on the PATH. Exits with 1 if there is a
complaint, and prints all of them.
"""

import argparse
import functools
import http.server
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

WIDTHS = {1280: 900, 390: 844}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
CLICKS = 2
PATIENCE = 10.0  # seconds
# What must be among the first results of a search, the name of an entry as the very first.
SEARCHES = {
    "adam": "api/optimizers/#gradtx.adam",
    "adamw": "api/optimizers/#gradtx.adamw",
    "adamw_bf16": "api/precision/#gradtx.adamw_bf16",
    "changelog": "changelog/",
    "learning rate": "choosing/#no-learning-rate-to-tune",
    "lr": "api/transforms/#gradtx.scale_by_lr",
}
FIRST = 3

# What is wrong with a page as it is laid out, its links, and the places in it that links can lead to.
LOOK = """() => {
    const wrong = [], page = document.scrollingElement;
    if (page.scrollWidth > innerWidth + 1) {
        const right = element => element.getBoundingClientRect().right;
        const wide = [...document.querySelectorAll('article *')].filter(e => right(e) > innerWidth + 1);
        wrong.push(`is ${page.scrollWidth} pixels wide in a window of ${innerWidth}` +
            (wide.length ? `, for <${wide[0].tagName.toLowerCase()}> ${wide[0].textContent.trim().slice(0, 60)}` : ''));
    }
    for (const code of document.querySelectorAll('.doc-signature code'))
        if (code.scrollWidth > code.clientWidth + 1) wrong.push(`cuts the signature ${code.textContent.split('(')[0]}`);
    for (const image of document.images)
        if (!image.complete || image.naturalWidth == 0) wrong.push(`lacks the picture ${image.src}`);
        else if (!image.closest('a')) wrong.push(`does not enlarge the picture ${image.src}`);
    return {
        wrong,
        links: [...document.querySelectorAll('a[href]')].map(a => a.href),
        places: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
    };
}"""


def chromium() -> str | None:
    """The browser's path, or None where there is none, or no playwright to drive it."""
    try:
        import playwright.sync_api  # noqa: F401  # no dependency of gradtx
    except ImportError:
        return None
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=600")  # what pages share is read once
        super().end_headers()


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of a folder."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


def pages_of(site: Path) -> list[str]:
    """The addresses of the pages, from the root of the site."""
    return sorted(str(p.parent.relative_to(site)).strip(".") + "/" for p in site.rglob("index.html"))


@contextmanager
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        program = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield program
        program.close()


def listen(page, home: str, complain) -> None:
    """Complains of what goes wrong while pages load."""
    page.on(
        "console", lambda m: complain(f"says {m.text!r} on the console") if m.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complain(f"raises {error}"))
    page.on("response", lambda r: complain(f"asks for {r.url}, which is {r.status}") if r.status >= 400 else None)
    page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else complain(f"needs {r.url}"))


def look(program, site: Path, home: str, pictures: Path | None = None) -> list[str]:
    """The complaints about all pages."""
    complaints: list[str] = []
    links: dict[str, list[str]] = {}
    places: dict[str, set[str]] = {}
    page = program.new_page()
    at = ""
    listen(page, home, lambda said: complaints.append(f"{at} {said}"))
    for at in pages_of(site):
        for i, (width, height) in enumerate(WIDTHS.items()):
            page.set_viewport_size({"width": width, "height": height})
            if i == 0:
                page.goto(home + at.lstrip("/"))
            seen = page.evaluate(LOOK)
            complaints += [f"{at} at {width} pixels {wrong}" for wrong in seen["wrong"]]
            if pictures:
                page.screenshot(path=pictures / f"{at.strip('/').replace('/', '_') or 'home'}_{width}.png")
        links[at], places[at] = [x.removeprefix(home) for x in seen["links"] if x.startswith(home)], set(seen["places"])
    return complaints + broken(site, links, places) + far(links)


def search(program, home: str) -> list[str]:
    """The searches that do not find what they should."""
    page, wrong = program.new_page(), []
    page.goto(home)
    page.click(".md-search__button")
    for words, wanted in SEARCHES.items():
        page.wait_for_selector("input:focus")
        page.keyboard.press("Control+A")
        page.keyboard.type(words)
        few, found = 1 if wanted.endswith(f".{words}") else FIRST, []
        deadline = time.monotonic() + PATIENCE
        while home + wanted not in found and time.monotonic() < deadline:
            page.wait_for_timeout(100)
            found = [link.get_attribute("href") for link in page.locator("[role=listbox] a").all()[:few]]
        wrong += [f"a search for {words} finds {found}, not {wanted}"] if home + wanted not in found else []
    page.close()
    return wrong


def page_at(link: str) -> str:
    return urlsplit(link).path.removesuffix("index.html").strip("/") + "/"


def broken(site: Path, links: dict[str, list[str]], places: dict[str, set[str]]) -> list[str]:
    """The links that lead nowhere."""
    wrong = []
    for at, targets in links.items():
        for link in sorted(set(targets)):
            address, place = urldefrag(link)
            there = page_at(address) in places or (site / urlsplit(address).path).is_file()
            if not there or (place and place not in places.get(page_at(address), ()) and not place.startswith("__")):
                wrong.append(f"{at} links to {link}, which is not there")
    return wrong


def far(links: dict[str, list[str]], home: str = "/") -> list[str]:
    """The pages that are too many clicks from home."""
    reached, edge = {home}, {home}
    for _ in range(CLICKS):
        edge = {page_at(link) for at in edge for link in links.get(at, ())} & set(links) - reached
        reached |= edge
    return [f"{at} is more than {CLICKS} clicks from home" for at in sorted(set(links) - reached)]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("site", type=Path, help="the folder of the built site")
    parser.add_argument("--pictures", type=Path, help="a folder for a screenshot of each page at each width")
    given = parser.parse_args()
    if chromium() is None:
        sys.exit("needs playwright, and chromium on the PATH")
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with browser() as program, served(given.site) as home:
        complaints = look(program, given.site, home, given.pictures) + search(program, home)
    print(*complaints, sep="\n")
    pages = len(pages_of(given.site))
    print(f"{pages} pages at {len(WIDTHS)} widths, {len(complaints)} complaints, {time.monotonic() - start:.0f} s")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
