"""trust.sh: CA_CERTS in a guest. Run on an /etc, /opt and /usr/local of the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from vagrantp.guest import facts
from vagrantp.guest.facts import Authorities
from vagrantp.instance import certificates
from vagrantp.settings import files

from tests.certificates import ONE, TWO

pytestmark = pytest.mark.slow

BOTH, FIRST, SECOND = [*files.authorities(ONE + TWO)], [ONE.strip()], [TWO.strip()]
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
ENVIRONMENT = "etc/environment"
CONF = "etc/ssh/sshd_config.d/00-vagrantp.conf"
# $1: the root of a guest. /usr/bin stays, and has none of the programs that a distribution adds.
SCRIPT = """
set -e
if [ -d /etc/alternatives ]; then  # Debian's awk
    mkdir -p "$1/etc/alternatives"
    mount --bind /etc/alternatives "$1/etc/alternatives"
fi
[ ! -d /usr/lib/jvm ] || mount -t tmpfs none /usr/lib/jvm
for folder in etc opt usr/local; do
    mount --rbind "$1/$folder" "/$folder"
done
shift
export PATH=/usr/local/bin:/bin
exec "$@"
"""
# As Debian's, Fedora's and Arch's do it.
PROGRAMS = {
    "update-ca-certificates": 'cat /etc/own /usr/local/share/ca-certificates/*.crt > "/$BUNDLE"',
    "update-ca-trust": "cat /etc/own $ANCHORS/*.crt > /etc/pki/tls/certs/ca-bundle.crt",
}
KEYTOOL = "echo $1 >> /opt/java/asked; [ $1 = -importcert ]"
NAMES = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"]
NAMES += ["PIP_CERT", "GIT_SSL_CAINFO"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make the root folder of a guest that trusts an authority of its own."""
    for folder in ("etc/ssh/sshd_config.d", "etc/ssl/certs", "opt", "usr/local/bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / BUNDLE).write_text("its own\n")
    (tmp_path / ENVIRONMENT).write_text("LANG=C.UTF-8")  # without an end
    return tmp_path


def _in_guest(root: Path, *argv: str, **environment: str) -> str:
    inside = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*inside, "sh", "-c", SCRIPT, "sh", str(root), *argv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _trust(root: Path, shell: str, wanted: list[str]) -> None:
    as_user = ["/bin/busybox", "sh"] if shell == "busybox" else [f"/bin/{shell}"]
    _in_guest(root, *as_user, "-c", certificates.script(wanted))


def _files(root: Path) -> Mapping[str, str]:
    kept = [path for path in root.rglob("*") if path.is_file() and "alternatives" not in path.parts]
    return {str(path.relative_to(root)): path.read_text() for path in kept}


def _pairs(bundle: str = f"/{BUNDLE}") -> list[str]:
    values = ["/etc/ssl/vagrantp.pem", *[bundle] * (len(NAMES) - 1)]
    return [f"{name}={value}" for name, value in zip(NAMES, values, strict=True)]


def _have(root: Path, program: str, script: str) -> None:
    path = root / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n".replace("$BUNDLE", BUNDLE))
    path.chmod(0o755)


@pytest.mark.parametrize("shell", SHELLS)
def test_no_program_for_a_store(root: Path, shell: str) -> None:
    """As in an image before the package is there; whatever was before comes back."""
    before = _files(root)
    for wanted in (BOTH, BOTH, FIRST):
        _trust(root, shell, wanted)
        found = _files(root)
        own = "\n".join(wanted)
        assert found["etc/ssl/vagrantp.pem"] == f"{own}\n"
        assert found[BUNDLE] == f"its own\n# vagrantp begins\n{own}\n# vagrantp ends\n"
        lines = found[ENVIRONMENT].splitlines()
        assert lines == ["LANG=C.UTF-8", "# vagrantp begins", *_pairs(), "# vagrantp ends"]
        exports = [f"export {pair}" for pair in _pairs()]
        assert found["etc/profile.d/vagrantp-trust.sh"].splitlines() == exports
        sudo = found["etc/sudoers.d/81-vagrantp-trust"]
        assert sudo == f'Defaults env_keep += "{" ".join(NAMES)}"\n'
    _trust(root, shell, [])
    assert _files(root) == {**before, ENVIRONMENT: "LANG=C.UTF-8\n"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_store_as_debian_has_it(root: Path, shell: str) -> None:
    (root / "etc/own").write_text("its own\n")
    _have(root, "usr/local/bin/update-ca-certificates", PROGRAMS["update-ca-certificates"])
    for wanted in (BOTH, SECOND):
        _trust(root, shell, wanted)
        store = sorted((root / "usr/local/share/ca-certificates").iterdir())
        assert [path.read_text().strip() for path in store] == wanted
        assert (root / BUNDLE).read_text() == "\n".join(["its own", *wanted, ""])


@pytest.mark.parametrize("anchors", ["pki/ca-trust/source/anchors", "ca-certificates/trust-source"])
def test_a_store_as_fedora_and_arch_have_it(root: Path, anchors: str) -> None:
    (root / "etc" / anchors).mkdir(parents=True)
    (root / "etc/pki/tls/certs").mkdir(parents=True)
    (root / "etc/own").write_text("its own\n")
    (root / BUNDLE).unlink()
    place = f"/etc/{anchors}".replace("trust-source", "trust-source/anchors")
    script = PROGRAMS["update-ca-trust"].replace("$ANCHORS", place)
    _have(root, "usr/local/bin/update-ca-trust", script)
    _trust(root, "dash", BOTH)
    bundle = "etc/pki/tls/certs/ca-bundle.crt"
    assert (root / bundle).read_text() == "\n".join(["its own", *BOTH, ""])
    assert _pairs(f"/{bundle}")[1] in (root / ENVIRONMENT).read_text()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_one_setenv_that_sshd_takes(root: Path, shell: str) -> None:
    conf, before = root / CONF, 'MaxSessions 9\nSetEnv "A=1" "PATH=/bin"\n'
    conf.write_text(before)
    settings = " ".join(f'"{pair}"' for pair in _pairs())
    for _ in range(2):
        _trust(root, shell, BOTH)
        assert conf.read_text() == before.replace('/bin"', f'/bin" {settings}')
        assert (root / ENVIRONMENT).read_text() == "LANG=C.UTF-8"
    _trust(root, shell, [])
    assert conf.read_text() == before


def test_a_java_with_a_store_of_its_own(root: Path) -> None:
    _have(root, "opt/java/bin/keytool", KEYTOOL)
    store = root / "opt/java/lib/security/cacerts"
    store.parent.mkdir(parents=True)
    _have(root, "opt/other/bin/keytool", "exit 1")
    (root / "opt/other/lib/security").mkdir(parents=True)
    (root / "opt/other/lib/security/cacerts").symlink_to("/etc/ssl/certs/java/cacerts")
    _trust(root, "dash", BOTH)
    assert not (root / "opt/java/asked").exists()  # there is no store yet
    store.write_text("")
    _trust(root, "dash", BOTH)
    asked = (root / "opt/java/asked").read_text().splitlines()
    assert asked == ["-delete", "-importcert", "-importcert"]


def test_what_a_guest_says_of_it(root: Path) -> None:
    def said(bundle: str = f"/{BUNDLE}") -> Authorities | None:
        printed = _in_guest(root, "/bin/sh", "-c", facts.SCRIPT, SSL_CERT_FILE=bundle)
        return facts.parse(printed).certificates

    digest = certificates.digest(BOTH)
    assert said() is None
    _trust(root, "dash", BOTH)
    assert said() == Authorities(digest, 0)
    assert said(bundle="") == Authorities(digest, 2)  # an old login's environment
    (root / BUNDLE).write_text(f"its own\n{TWO}")  # as somebody does who writes it again
    assert said() == Authorities(digest, 1)
