"""URLs as they may be shown: a password, or a token, in them is nobody else's."""

from __future__ import annotations

import re

# Up to the last @ before the path. A password with a / in it makes no URL, and is hidden as well.
USERINFO = re.compile(r"(?<=://)(?:[^/?#\n]*|[^/?#:\s]*:\S*)@")
QUERY = re.compile(r"(://[^\s\"'?]*\?)[^\s\"'#]+")  # a signed URL is as good as a password


def redacted(text: str) -> str:
    """Return a text with what may be secret in its URLs hidden: who logs in, and the query."""
    if "://" not in text:
        return text
    return QUERY.sub(r"\1…", USERINFO.sub("…@", text))
