"""URLs as they may be shown: a password, or a token, in them is nobody else's."""

from __future__ import annotations

import re

# Up to the last @ before the path. A password with a / in it makes no URL, and is hidden as well.
USERINFO = re.compile(r"(?<=://)(?:[^/?#\n]*|[^/?#:\s]*:\S*)@")
QUERY = re.compile(r"(://[^\s\"'?]*\?)[^\s\"'#]+")  # a signed URL is as good as a password

MANY = 30  # URLs in a text; each can cost a look at all of it, and a guest prints what it likes


def redacted(text: str) -> str:
    """Return a text with what may be secret in its URLs hidden: who logs in, and the query.

    Where there are too many, all of each line from its first one on.
    """
    if "://" not in text:
        return text
    if text.count("://") > MANY:
        return re.sub("://.*", "://…", text)
    return QUERY.sub(r"\1…", USERINFO.sub("…@", text))
