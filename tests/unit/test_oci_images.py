"""What add_ssh.sh is given of an image's own environment."""

from __future__ import annotations

import subprocess

import pytest
from vagrantp.images import oci

from tests.certificates import ONE


def _given(environment: list[str], names: str) -> list[str]:
    script = oci._script(environment, []).removesuffix(oci.ADD.read_text("utf-8"))
    shown = " ".join(f'"${name}"' for name in names.split())
    argv = ["sh", "-c", f"{script}\nprintf '%s|' {shown}"]
    return subprocess.check_output(argv, text=True).split("|")[:-1]


def test_its_environment() -> None:
    image = ['A="x" \\ $y', "PATH=/opt/it:/bin", "HOME=/it", "B=two\nlines", "B.C=d"]
    settings, names, path = _given(image, "settings names path")
    assert settings == r'"A=\"x\" \\ $y" "B.C=d"'  # sshd takes no value of several lines
    assert (names, path) == ("A B", "/opt/it:/bin")
    [exports] = _given(image, "exports")
    assert exports == "export 'A=\"x\" \\ $y'\nexport 'B=two\nlines'\n"  # no shell has a B.C


def test_nobody_elses_image_trusts_certificates() -> None:
    assert _given([], "trust") == [""]
    assert oci._script([], [ONE]) != oci._script([], [])  # which the image's name is made of


@pytest.mark.parametrize(
    ("environment", "lang"),
    [
        ([], "C.UTF-8"),
        (["LANGUAGE=de"], "C.UTF-8"),
        (["LANG=de_DE.UTF-8"], ""),
        (["LC_ALL=C"], ""),
        (["LC_CTYPE="], ""),
    ],
)
def test_a_language_of_its_own_stays(environment: list[str], lang: str) -> None:
    assert _given(environment, "lang") == [lang]
