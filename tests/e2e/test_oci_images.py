"""IMAGE as an OCI reference: whatever is in it, ssh and Ansible work in its container."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.images import built

from tests.certificates import ONE
from tests.conftest import CONTAINER, PROXIES, MakeProject
from tests.e2e.conftest import guest, run, status, trusts_them

# Debian's packages, without ssh and sudo, as somebody makes an image for a program of theirs.
CONTAINERFILE = """\
FROM {base}
ENV SUDO_FORCE_REMOVE=yes
RUN apt-get purge --yes openssh-server openssh-sftp-server sudo && rm -rf /etc/ssh /usr/local/sbin/*
# an sshd that is for somebody else, elsewhere; a locked user; a source of packages that has gone
RUN mkdir -p /etc/ssh/sshd_config.d && useradd --create-home av && \\
    printf 'Port 2222\\nUsePAM no\\nAllowUsers admin\\n' > /etc/ssh/sshd_config.d/50-own.conf
RUN echo 'deb http://127.0.0.1:9/debian gone main' > /etc/apt/sources.list.d/gone.list
ENV LINES="one\\
two"
RUN mkdir /opt/it && printf '#!/bin/sh\\necho "it runs: $GREETING"' > /opt/it/run
RUN chmod +x /opt/it/run
ENV GREETING="it's \\"me\\"" PATH=/opt/it:/usr/local/bin:/usr/bin:/bin
WORKDIR /opt/it
USER 1234
ENTRYPOINT ["/bin/false"]
CMD ["--never"]
"""


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """Make an image, and forget what became of it."""
    base = built.ensure_container_image(Host(Context()), built.FIRST)
    (tmp_path / "Containerfile").write_text(CONTAINERFILE.format(base=base))
    name = "localhost/test/plain:1"
    run("podman", "build", "--quiet", "--tag", name, str(tmp_path))
    yield name
    listing = json.loads(run("podman", "images", "--format", "json"))
    names = [name for image in listing for name in image.get("Names") or []]
    ours = [known for known in names if known.startswith("localhost/vagrantp-localhost-test-")]
    run("podman", "rmi", "--force", *ours, name)


def test_an_image_without_ssh(image: str, guests: MakeProject) -> None:
    app = guests().write({**CONTAINER, "IMAGE": image, "SSH_USER": "av"})
    up = app.having(**PROXIES).fab("up")
    assert up.returncode == 0, up.stderr
    made = run("podman", "inspect", "--format", "{{.ImageName}}", status(app)["instance"]).strip()
    assert made.startswith("localhost/vagrantp-localhost-test-plain-")
    assert "SECRET" not in run("podman", "image", "inspect", made)
    assert "SECRET" not in guest(app, "sudo cat /proc/1/environ; env; sudo cat /etc/profile.d/*")
    assert guest(app, "id -un; sudo -n id -un; run") == 'av\nroot\nit runs: it\'s "me"\n'
    assert guest(app, "bash --login -c run") == 'it runs: it\'s "me"\n'
    assert guest(app, "sudo run; sudo sh -c run") == 2 * 'it runs: it\'s "me"\n'
    paths = guest(app, "echo $PATH; bash -lc 'echo $PATH'; sudo sh -c 'echo $PATH'").split()
    assert paths == 3 * [paths[0]]
    own = "/home/av/.local/bin:/home/av/bin"
    assert paths[0].startswith(f"/opt/it:{own}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:")
    assert (
        guest(app, "echo $LANG; sudo sh -c 'echo $LANG'; bash -lc 'echo $LANG'") == 3 * "C.UTF-8\n"
    )
    assert guest(app, "sudo ss -Hltn 'sport = 2222' | wc -l") == "2\n"  # IPv4 and IPv6
    assert app.fab("verify").returncode == 0
    assert app.fab("stop").returncode == 0
    again = app.fab("up")
    assert again.returncode == 0, again.stderr
    assert app.fab("rm", "--force").returncode == 0
    anew = app.fab("up")  # what was added is there
    assert (anew.returncode, "add ssh" in up.stderr, "add ssh" in anew.stderr) == (0, True, False)


def test_an_image_gets_its_packages_by_ones_own_authority(image: str, guests: MakeProject) -> None:
    app = guests().write({**CONTAINER, "IMAGE": image, "CA_CERTS": "ca.pem"})
    (app.folder / "ca.pem").write_text(ONE)
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert "trust CA_CERTS" not in up.stderr  # the image did, when it was made
    trusts_them(app, [ONE])
    assert guest(app, "run") == 'it runs: it\'s "me"\n'
    app.write({**CONTAINER, "IMAGE": image})
    without = app.fab("up")
    assert without.returncode == 0, without.stderr
    trusts_them(app, [])


def test_an_image_without_a_shell(guests: MakeProject, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run("tar", "-C", str(tmp_path), "-cf", str(tmp_path / "it.tar"), "file")
    run("podman", "import", "--quiet", str(tmp_path / "it.tar"), "localhost/test/bare:1")
    try:
        up = guests().write({**CONTAINER, "IMAGE": "localhost/test/bare:1"}).fab("up")
        assert up.returncode == 5
        assert "/bin/sh" in up.stderr
        assert "an image needs a shell and apt-get, apk, dnf or pacman" in up.stderr
    finally:
        run("podman", "rmi", "localhost/test/bare:1")
