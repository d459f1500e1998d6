"""A URL is shown without what may be secret in it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import ProviderError, in_words
from vagrantp.core.system import Host
from vagrantp.core.urls import redacted
from vagrantp.settings import saved

from tests.unit.test_commands import SETTINGS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host/x", "https://…@host/x"),
        ("https://secret@host", "https://…@host"),
        ("https://me:se@cret@host/x@y", "https://…@host/x@y"),
        ("https://me:se/cret@host/x", "https://…@host/x"),
        ("https://me:se?cret@host/x", "https://…@host/x"),
        ("git+ssh://me:secret@host/x and http://secret@b", "git+ssh://…@host/x and http://…@b"),
        ('Proxy "http://me:secret@proxy:3128/";', 'Proxy "http://…@proxy:3128/";'),
        ("https://host/x?token=secret&a=secret#end", "https://host/x?…#end"),
        ("https://host:8080/a:b", "https://host:8080/a:b"),
        ("qemu:///system", "qemu:///system"),
        ("mail me@host?", "mail me@host?"),
        ("'https://host/x' me@host", "'https://host/x' me@host"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_where_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "https://me:secret@host.invalid/x"
    host = Host(Context(), log=tmp_path / "log", verbose=True)
    with pytest.raises(ProviderError) as failed:
        host.change(
            ["sh", "-c", f"printf {url[:14]}; sleep 0.1; echo {url[14:]}; exit 1"],
            what=url,
            timeout=9,
        )
    with pytest.raises(ProviderError) as late:
        host.change(["sh", "-c", f"sleep 9 # {url}"], what="x", timeout=0.1)
    with host.progress.stage("download", url):
        pass
    Host(Context(), dry=True).exec_process(["echo", url])
    Host(Context(), dry=True).change(["echo", url], what="x", timeout=1)
    bug = in_words(_raised(KeyError(url)))
    old = replace(SETTINGS, image=url)
    [(_, was, now)] = saved.differences(old, replace(old, image=url.replace("secret", "secret2")))
    printed = "".join(capsys.readouterr())
    log = (tmp_path / "log").read_text()
    for text in (str(failed.value), str(late.value), printed, log, bug, was, now):
        assert "secret" not in text
    for text in (str(failed.value), str(late.value), printed, log, bug, was):
        assert "https://…@host.invalid/x" in text


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_line_of_nothing_but_urls_takes_no_time() -> None:
    start = time.monotonic()
    assert redacted("a http://u:p@b\nc " + "://:" * 16_000 + " u:p@d\ne") == "a http://…\nc ://…\ne"
    assert time.monotonic() - start < 1
