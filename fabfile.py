"""The verbs. Each is a file of lib/vagrantp/verbs: it loads, decides, runs, prints."""

from __future__ import annotations

import sys
from pathlib import Path

# `fab` may come here through a link, and puts the link's folder on sys.path, not ours.
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from vagrantp import verbs

ns = verbs.collection()
