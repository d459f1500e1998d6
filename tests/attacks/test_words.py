"""F14: words of a folder that a terminal would obey. The numbers are those of README.md."""

from __future__ import annotations

import unicodedata

from tests.conftest import CONTAINER, MakeProject

WORDS = {
    "OSC 52, the clipboard": "\x1b]52;c;aGk=\x07",
    "OSC 8, a link": "\x1b]8;;file:///etc/passwd\x1b\\x\x1b]8;;\x1b\\",
    "OSC 0 and a report of the title": "\x1b]0;id\x07\x1b[21t",
    "DECRQSS": "\x1bP$qid\x1b\\",
    "C1": "\x9b2J\x9d52;c;aGk=\x9c",
    "bidi": "\u202egpj.sh\u2066",
    "tags": "\U000e0001\U000e0073",
    "backspace and carriage return": "evil\x08\x08\x08\x08good\rgood",
    "no UTF-8": "\udc9b2J\udcff",
}


def test_what_a_folder_says(project: MakeProject) -> None:
    """57: as values, keys, lines that are none, and as the folder's own name."""
    app = project("app " + "".join(WORDS.values()).replace("/", " "))
    lines = "".join(f"{key}={value}\n" for key, value in CONTAINER.items())
    for word in [word for kind, word in WORDS.items() if kind != "no UTF-8"]:
        lines += f"PROVISION_SCRIPT={word}.yml\n{word}=1\n{word}\nNAME={word}\n"
    (app.folder / ".env").write_bytes(lines.encode(errors="surrogateescape"))
    for verb in ("validate", "status"):
        done = app.fab(verb)
        shown = done.stdout + done.stderr
        assert "x1b" in shown and "Traceback" not in shown
        kinds = {unicodedata.category(one) for one in shown.replace("\n", "")}
        assert kinds.isdisjoint({"Cc", "Cf", "Cs"}), ascii(shown)
