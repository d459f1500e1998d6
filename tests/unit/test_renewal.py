"""`make images`: base images built again beside guests, by stand-ins for podman and a builder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import HostLimitError, Interrupted, ProviderError
from vagrantp.core.system import Host
from vagrantp.host import checks, room
from vagrantp.images import built, store
from vagrantp.images.store import Box

# Its images are the lines of a file, and those that a container has, of another. `now` is run at an
# import, once it is there.
PODMAN = r"""#!/bin/sh
cd {state}
for last; do :; done
case "$1 $2" in
    "image exists") grep -qx "$last" images ;;
    "import --quiet")
        if [ -e full ]; then echo "Error: write root.tar: No space left on device" >&2; exit 125; fi
        echo "$last" >> images
        if [ -e now ]; then . ./now; fi ;;
    "images --noheading") sed 's/:latest$//' images ;;
    "ps --all") for one; do :; done; grep -x "${{one#--filter=ancestor=}}" used || true ;;
    "images --filter"*) echo "[]" ;;
    rmi*) grep -vx "$last" images > left; mv left images ;;
    *) exit 1 ;;
esac
"""
UNSHARE = r"""#!/bin/sh
for last; do :; done
case "$*" in
    *mmdebstrap*) for one; do [ "$one" = - ] || target=$one; done; echo made > "$target" ;;
    *" rm -rf "*) rm -rf "$last" ;;
esac
"""
VIRSH = r"""#!/bin/sh
cd {state}
echo "$*" >> called
case "$*" in
    *vol-dumpxml*) for one in $(cat backing); do echo "<backingStore>
<path>/pool/$one</path>"; done ;;
    *vol-list*) sed 's/$/ \/pool/' volumes ;;
    *vol-delete*) for last; do :; done; grep -vx "$last" volumes > left; mv left volumes ;;
esac
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the stand-ins on PATH; return their folder."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    for kind in ("DATA", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    (tmp_path / "bin").mkdir()
    scripts = {"podman": PODMAN, "unshare": UNSHARE, "virsh": VIRSH, "apt-get": "#!/bin/sh\n"}
    for name, text in {**scripts, "apt-config": "#!/bin/sh\n"}.items():
        script = text if text == UNSHARE else text.format(state=tmp_path)
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("images", "used", "volumes", "backing", "called"):
        (tmp_path / name).touch()
    yield tmp_path


@pytest.fixture
def host() -> Host:
    return Host(Context())


def images(state: Path) -> list[str]:
    return (state / "images").read_text().splitlines()


def renew(host: Host) -> list[str]:
    return built.renew(host, lambda _: None)


def known(state: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((state / "DATA/vagrantp/renewed.json").read_text())
    return found


def test_the_image_of_before_stays_until_the_next_renewal(state: Path, host: Host) -> None:
    """An `up` may have looked for it, and be about to make its container."""
    first = built.ensure_container_image(host, built.FIRST)
    assert renew(host) == [f"{built.FIRST} (container)"]
    second = built.ensure_container_image(host, built.FIRST)
    assert images(state) == [first, second]
    assert first != second
    renew(host)
    third = built.ensure_container_image(host, built.FIRST)
    assert images(state) == [second, third]
    (state / "used").write_text(second.removesuffix(":latest") + "\n")  # a container is of it
    renew(host)
    assert images(state)[:2] == [second, third]
    assert known(state).keys() == {f"{built.FIRST} (container)"}


def test_nothing_is_removed_before_the_new_image_is_known(state: Path, host: Host) -> None:
    first = built.ensure_container_image(host, built.FIRST)
    (state / "now").write_text("cp images seen; cp DATA/vagrantp/renewed.json known\n")
    renew(host)
    assert first in (state / "seen").read_text()
    assert known(state).keys() == {f"{built.FIRST} (container)"}
    unfinished = json.loads((state / "known").read_text())["unfinished (container)"]
    assert f"localhost/{unfinished}:latest" == images(state)[-1]


def test_a_full_disk_leaves_nothing_of_a_renewal(state: Path, host: Host) -> None:
    first = built.ensure_container_image(host, built.FIRST)
    (state / "full").touch()
    with pytest.raises(HostLimitError):
        renew(host)
    assert images(state) == [first]
    assert built.ensure_container_image(host, built.FIRST) == first
    assert known(state) == {}
    assert not list((state / "DATA").rglob("root.tar"))


def test_an_interrupt_after_the_import_leaves_nothing_of_a_renewal(state: Path, host: Host) -> None:
    first = built.ensure_container_image(host, built.FIRST)
    (state / "now").write_text("kill -INT $PPID; sleep 0.1; exit 130\n")
    with pytest.raises((KeyboardInterrupt, Interrupted, ProviderError)):
        renew(host)
    assert images(state) == [first]
    assert known(state) == {}


def test_what_a_killed_renewal_has_left_goes_with_the_next(state: Path, host: Host) -> None:
    first = built.ensure_container_image(host, built.FIRST)
    left = f"vagrantp-{built.FIRST}-0123456789"
    (state / "images").write_text(f"{first}\nlocalhost/{left}:latest\n")
    (state / "volumes").write_text(f"{Box(left, 0).volume}\n{Box(left, 0).volume}.part\n")
    document = {"unfinished (container)": left, "unfinished (vm)": left}
    (state / "DATA/vagrantp/renewed.json").write_text(json.dumps(document))
    folder = store.vagrant_home() / "boxes" / left
    folder.mkdir(parents=True)
    work = store.vagrant_home() / "tmp" / left / "root"
    work.mkdir(parents=True)
    assert renew(host) == [f"{built.FIRST} (container)"]
    assert not folder.exists()
    assert not work.parent.exists()
    assert (state / "volumes").read_text() == ""
    assert left not in (state / "images").read_text()
    assert known(state).keys() == {f"{built.FIRST} (container)"}


def test_old_boxes_go_but_for_what_is_kept_or_stood_upon(state: Path, host: Host) -> None:
    boxes = [Box(f"vagrantp-{built.FIRST}-{digit * 10}", 0) for digit in "1234"]
    now, before, used, old = boxes
    volumes = [box.volume for box in boxes]
    (state / "volumes").write_text("\n".join([*volumes, "somebodys.img"]) + "\n")
    (state / "backing").write_text(used.volume)
    for box in boxes:
        (store.vagrant_home() / "boxes" / box.name).mkdir(parents=True)
    store.remove_old_boxes(host, now, {before.name})
    assert (state / "volumes").read_text().split() == [
        *(box.volume for box in (now, before, used)),
        "somebodys.img",
    ]
    assert not (store.vagrant_home() / "boxes" / old.name).exists()


def test_a_renewal_needs_room(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setitem(room.ROOM_TO_BUILD, "container", 2**40)
    with pytest.raises(HostLimitError, match="building the base image takes"):
        checks.require_room_to_renew(host, "container")
