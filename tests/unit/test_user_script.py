"""user.sh: who logs in, by which keys, and the PATH that it finds. Run on an /etc of the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from vagrantp.instance import seed

pytestmark = pytest.mark.slow

KEY = r"ssh-ed25519 AAAA C:\new\table\\\c"  # a dash's echo reads ends of lines and of itself
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Everything in /etc and /var/lib is a copy; the person's home is below it.
SCRIPT = """
set -e
if [ -d /etc/alternatives ]; then  # Debian's awk
    mkdir -p "$1/alternatives"
    mount --bind /etc/alternatives "$1/alternatives"
fi
mount --bind "$1/lib" /var/lib
mount --rbind "$1" /etc
shift
exec "$@"
"""
KEYS = "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/vagrantp-keys/%u"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Make an /etc with root alone in it, who lives there, and an sshd without PAM."""
    (tmp_path / "ssh/sshd_config.d").mkdir(parents=True)
    (tmp_path / "ssh/sshd_config").write_text("Include /etc/ssh/sshd_config.d/*.conf\n")
    (tmp_path / "passwd").write_text("root:x:0:0::/etc/me:/bin/sh\n")
    (tmp_path / "group").write_text("root:x:0:\n")
    for folder in ("me/.ssh", "skel", "sudoers.d", "pam.d", "lib"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def _run(etc: Path, shell: str, keys: str, zone: str = "") -> None:
    inside = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    as_user = ["busybox", "sh"] if shell == "busybox" else [shell]
    script = seed.user_script("root", keys, zone=zone)
    argv = [*inside, "sh", "-c", SCRIPT, "sh", str(etc), *as_user, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_keys_stay_as_they_are(etc: Path, shell: str) -> None:
    theirs = etc / "me/.ssh/authorized_keys"
    theirs.write_text("ssh-rsa BBBB no end")
    for _ in range(2):
        _run(etc, shell, f"{KEY}\nssh-ed25519 CCCC me\n")
        assert theirs.read_text() == f"ssh-rsa BBBB no end\n{KEY}\nssh-ed25519 CCCC me\n"
        own = etc / "ssh/vagrantp-keys/root"  # where no dotfiles replace them
        assert own.read_text() == f"{KEY}\n"  # vagrantp's own
        assert (own.stat().st_mode & 0o777, own.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    assert KEYS in (etc / "ssh/sshd_config.d/00-vagrantp.conf").read_text().splitlines()


def test_an_sshd_that_has_its_keys_elsewhere(etc: Path) -> None:
    with (etc / "ssh/sshd_config").open("a") as config:
        config.write("AuthorizedKeysFile /srv/keys/%u .ssh/more\n")
    _run(etc, "sh", KEY)
    sshd = (etc / "ssh/sshd_config.d/00-vagrantp.conf").read_text()
    assert "AuthorizedKeysFile /srv/keys/%u .ssh/more /etc/ssh/vagrantp-keys/%u\n" in sshd


@pytest.mark.skipif(not shutil.which("sudo"), reason="there is no sudo")
def test_an_image_without_sudoers(etc: Path) -> None:
    """It was seen in a Dockerfile; one that is there stays."""
    _run(etc, "sh", KEY)
    assert (etc / "sudoers").read_text().endswith("#includedir /etc/sudoers.d\n")
    (etc / "sudoers").chmod(0o600)
    (etc / "sudoers").write_text("theirs\n")
    _run(etc, "sh", KEY)
    assert (etc / "sudoers").read_text() == "theirs\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_path_without_pam(etc: Path, shell: str) -> None:
    """It is in the one SetEnv that sshd takes; the image's own folders come first."""
    (etc / "environment").write_text(f'PATH="/opt/a:/venv/bin:{SYSTEM}:/opt/z:/opt/it\'s|&:"\n')
    conf = etc / "ssh/sshd_config.d/00-vagrantp.conf"
    conf.write_text('MaxSessions 9\nSetEnv "A=1"\n')
    path = f"/opt/a:/venv/bin:/etc/me/.local/bin:/etc/me/bin:{SYSTEM}:/opt/z"
    for _ in range(2):
        _run(etc, shell, KEY)
        found = conf.read_text().replace(":/usr/local/games:/usr/games", "")
        assert found == f'MaxSessions 9\nSetEnv "A=1" "PATH={path}"\n{KEYS}\n'
    assert "!secure_path" in (etc / "sudoers.d/90-vagrantp").read_text()


@pytest.mark.parametrize("shell", SHELLS)
def test_path_by_pam(etc: Path, shell: str) -> None:
    """PAM gives everybody a home of their own; a profile that repeats it is nobody's work."""
    with (etc / "ssh/sshd_config").open("a") as config:
        config.write("UsePAM yes\n")
    (etc / "pam.d/sshd").write_text("session required pam_env.so\n")
    profile = '# mine\nif [ -d "$HOME/.local/bin" ] ; then\n    PATH="$HOME/.local/bin:$PATH"\nfi\n'
    for folder in ("me", "skel"):
        (etc / folder / ".profile").write_text(profile)
    for _ in range(2):
        _run(etc, shell, KEY)
        [line] = (etc / "security/pam_env.conf").read_text().splitlines()
        assert line.startswith(f'PATH DEFAULT="@{{HOME}}/.local/bin:@{{HOME}}/bin:{SYSTEM}')
        assert line.endswith('" OVERRIDE=${PATH}')
    assert (etc / "me/.profile").read_text() == (etc / "skel/.profile").read_text() == "# mine\n"
    sshd = (etc / "ssh/sshd_config.d/00-vagrantp.conf").read_text()
    assert sshd == f"MaxSessions 1000\nMaxStartups 100\n{KEYS}\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_an_sshd_that_is_for_others(etc: Path, shell: str) -> None:
    """It lets the user in as well, at the port that we know, and goes on as it was for others."""
    theirs = "Port 2222\nUsePAM no\nallowusers admin\nAllowGroups wheel\nMaxSessions 9\n"
    with (etc / "ssh/sshd_config").open("a") as config:
        config.write(theirs)
    (etc / "shadow").write_text("root:!:1:0:99999:7:::\nadmin:!$6$x:1:0:99999:7:::\n")
    for _ in range(2):
        _run(etc, shell, KEY)
        conf = (etc / "ssh/sshd_config.d/00-vagrantp.conf").read_text().splitlines()
        assert conf[:4] == ["Port 22", "AllowUsers root", KEYS, "AllowGroups root"]
        assert len(conf) == 5 and conf[4].startswith("SetEnv ")
    assert (etc / "ssh/sshd_config").read_text().endswith(theirs)
    shadow = (etc / "shadow").read_text()
    assert shadow == "root:*:1:0:99999:7:::\nadmin:!$6$x:1:0:99999:7:::\n"


@pytest.mark.parametrize("port", ["Port 22\nPort 2222\n", "#Port 2222\n", ""])
def test_an_sshd_that_listens_where_we_look(etc: Path, port: str) -> None:
    with (etc / "ssh/sshd_config").open("a") as config:
        config.write(port)
    _run(etc, "sh", KEY)
    assert "Port" not in (etc / "ssh/sshd_config.d/00-vagrantp.conf").read_text()


def test_a_profile_of_ones_own_stays(etc: Path) -> None:
    profile = 'if [ -d "$HOME/bin" ] ; then\n    PATH="$HOME/bin:$PATH"\nfi\n'
    (etc / "skel/.profile").write_text(profile)
    (etc / "me/.profile").write_text(f"{profile}# mine\n")
    _run(etc, "sh", KEY)
    assert (etc / "me/.profile").read_text() == f"{profile}# mine\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_hosts_time_zone_at_first(etc: Path, shell: str) -> None:
    if not Path("/usr/share/zoneinfo/Europe/Berlin").exists():
        pytest.skip("this host has no tzdata")
    (etc / "timezone").write_text("Etc/UTC\n")
    _run(etc, shell, KEY)
    assert not (etc / "localtime").is_symlink()
    _run(etc, shell, KEY, "Europe/Berlin")
    assert (etc / "localtime").readlink() == Path("/usr/share/zoneinfo/Europe/Berlin")
    assert (etc / "timezone").read_text() == "Europe/Berlin\n"
    (etc / "timezone").write_text("Asia/Tokyo\n")  # somebody's, in the guest
    _run(etc, shell, KEY, "Europe/Berlin")
    assert (etc / "timezone").read_text() == "Asia/Tokyo\n"


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("/usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin"),
        ("/nowhere/zoneinfo/America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("/nowhere/zoneinfo/Etc/GMT+3", "Etc/GMT+3"),
        ("/nowhere/zoneinfo/UTC", "UTC"),
        ("/usr/share/zoneinfo/x; reboot", ""),
        ("/usr/share/zoneinfo/../../../etc/passwd", ""),
        ("/somewhere/else", ""),
    ],
)
def test_the_name_of_the_hosts_time_zone(tmp_path: Path, link: str, name: str) -> None:
    (tmp_path / "localtime").symlink_to(link)
    assert seed.zone(tmp_path / "localtime") == name
    assert seed.zone(tmp_path / "none") == ""
