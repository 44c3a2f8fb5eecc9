# SPDX-License-Identifier: Apache-2.0
"""The description that a package index shows: the README, whose links and pictures lead nowhere there.

The build calls this (see pyproject.toml). With a `Repository` among the urls of the project, links and pictures are
those of its newest version; without one, a picture is left out and a link is its text.
"""

import re
from pathlib import Path

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # tests call the function alone
    MetadataHookInterface = object

FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def description(readme: str, repository: str | None) -> str:
    """The README with absolute links, or with none."""

    def away(link: re.Match) -> str:
        picture, text, target = link.groups()
        if "://" in target:
            return link[0]
        if repository is None:
            return "" if picture else text
        return f"{picture}[{text}]({repository.rstrip('/')}/{'raw' if picture else 'blob'}/HEAD/{target})"

    parts = FENCED.split(readme)  # every other one is code
    return "".join(part if i % 2 else LINK.sub(away, part) for i, part in enumerate(parts))


class Description(MetadataHookInterface):
    PLUGIN_NAME = "custom"

    def update(self, metadata: dict) -> None:
        text = description((Path(self.root) / "README.md").read_text(), metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
