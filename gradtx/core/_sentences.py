# SPDX-License-Identifier: Apache-2.0
"""Lists and long texts in messages, cut to what can be read."""

from collections.abc import Iterable

MOST = 3
"""How many of the things that an error is about it shows."""

CHOICES = 8
"""How many of the things that could have been given instead."""


def listed(found: Iterable[str], most: int = MOST, joint: str = ", ") -> str:
    """The first of these texts and how many more there are; "none" for none. The empty path is the root."""
    texts = [text or "the root" for text in found]
    more = f"{joint.strip(', ')} and {len(texts) - most} more" if len(texts) > most else ""
    return joint.join(texts[:most]) + more or "none"


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and end if it is too long."""
    if len(text) <= limit:
        return text
    end = (limit - 3) // 2
    return f"{text[: limit - 3 - end]}...{text[-end:]}"
