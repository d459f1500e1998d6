"""A stand-in for Arch's cloud image, of Debian's packages: GPT, BIOS boot partition, btrfs, wheel.

What a #cloud-config for Arch names is there: packages by Arch's names, in a repository within the
image (they only depend on what Debian calls otherwise), and the unit sshd.service.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.boxes import HERE, build, run

PACKAGES = (
    *("cloud-guest-utils", "cloud-init", "git", "network-manager", "python3"),
    *("python-is-python3", "rsync", "systemd-resolved", "tmux", "vim"),
)
FINISH = r"""
chroot "$1" userdel --remove vagrant 2>/dev/null
rm "$1/etc/sudoers.d/vagrant"
chroot "$1" groupadd --system wheel
chroot "$1" systemctl --quiet disable NetworkManager.service ssh.service ssh.socket
sed '/^Alias=/d' "$1/usr/lib/systemd/system/ssh.service" > "$1/etc/systemd/system/sshd.service"
chroot "$1" systemctl --quiet enable sshd.service
# These are Arch's; the packages are Debian's all the same.
cat > "$1/etc/cloud/cloud.cfg.d/90_arch.cfg" <<'END'
datasource_list: [NoCloud, ConfigDrive, None]
apt: {preserve_sources_list: true}
system_info:
  default_user: {name: arch, gecos: "", groups: [wheel, users], lock_passwd: true, shell: /bin/bash,
                 sudo: ["ALL=(ALL) NOPASSWD:ALL"]}
END
repository=$1/srv/arch
for pair in ansible: emacs: networkmanager:network-manager openssh:openssh-server python:python3; do
    mkdir -p "$repository/made/DEBIAN"
    {
        printf 'Package: %s\nVersion: 99:1\nArchitecture: all\n' "${pair%:*}"
        printf 'Maintainer: nobody <nobody@example.org>\nDescription: stands in for that of Arch\n'
        [ -z "${pair#*:}" ] || echo "Depends: ${pair#*:}"
    } > "$repository/made/DEBIAN/control"
    file=${pair%:*}.deb
    chroot "$1" dpkg-deb --build /srv/arch/made "/srv/arch/$file" >/dev/null
    {
        cat "$repository/made/DEBIAN/control"
        echo "Filename: ./$file"
        echo "Size: $(stat -c %s "$repository/$file")"
        echo "SHA256: $(sha256sum "$repository/$file" | cut -c 1-64)"
        echo
    } >> "$repository/Packages"
    rm -r "$repository/made"
done
echo 'deb [trusted=yes] file:/srv/arch ./' > "$1/etc/apt/sources.list.d/arch.list"
rm -f "$1"/etc/ssh/ssh_host_*
: > "$1/etc/machine-id"
"""


def image(target: Path, work: Path) -> None:
    """Make the qcow2 image `target`, in the new folder `work`. About three minutes."""
    work.mkdir()
    source = work / "source"
    shutil.copytree(HERE / "plain", source)
    for name, text in (("packages", "\n".join(PACKAGES) + "\n"), ("finish", FINISH)):
        with (source / name).open("a") as file:
            file.write(text)
    made = build("gpt-btrfs", work / "image", "trixie", source, 3)
    run("mv", made / "box.img", target)
