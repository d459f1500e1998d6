"""`doctor` on a host where much is missing, and held back. A whole one is in tests/e2e."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from vagrantp.providers.libvirt import accel

from tests.conftest import MASTER, NO_LIBVIRT, NO_PODMAN, MakeProject

CHECKS = (
    *("tools", "image tools (vm)", "image tools (container)", "memory", "processors", "sandbox"),
    *("room to build images", "filled images", "libvirt", "vagrant-libvirt", "storage pool"),
    *("libvirt network", "libvirt nwfilter", "kvm", "vm", "podman", "cgroup controllers"),
    *("shared limits", "user ids"),
    *("container storage", "podman network", "container", "mounts", "isolation"),
    *("packet filter", "other firewalls"),
)
OF_IMAGES = re.compile(r"debian-1[23] \((vm|container)\)")  # of those that are built


def test_what_is_broken_is_found(project: MakeProject) -> None:
    # nft that takes every rule and applies none
    broken = f"{NO_PODMAN} {NO_LIBVIRT} mount --bind /bin/true $(command -v nft);"
    broken += "mount --bind /dev/null $(command -v mmdebstrap)"
    done = project().fab_amid(broken, "doctor", "--json")
    assert done.returncode == 5
    warnings = set() if accel.DEVICE.exists() else {"kvm"}
    count = 18 - len(warnings)
    document = json.loads(done.stdout)
    total = len(document["checks"])
    assert re.search(rf"^{count} of {total} checks failed\n\Z", done.stderr, re.MULTILINE)
    assert (document["schema"], document["ok"]) == (1, False)
    assert {frozenset(check) for check in document["checks"]} == {
        frozenset({"name", "outcome", "found", "mend"})
    }
    checks = {
        check["name"]: check
        for check in document["checks"]
        if not OF_IMAGES.fullmatch(check["name"])
    }
    assert tuple(checks) == CHECKS
    well = {"memory", "processors", "sandbox", "room to build images", "user ids", "mounts"}
    well |= {"filled images", "shared limits"}
    assert {name for name in CHECKS if checks[name]["outcome"] == "ok"} == well
    found = {name: check["found"] for name, check in checks.items() if name not in well}
    assert found["tools"] == "podman is not installed"
    assert found["image tools (vm)"] == "mmdebstrap is not installed"
    assert found["libvirt"].startswith("libvirt does not answer: Failed to connect socket")
    assert "virConnectOpen failed" in found["vagrant-libvirt"]
    assert found["container"] == "podman is not installed"
    assert found["packet filter"] == "a packet passes nft's rule against it"
    assert {checks[name]["mend"] for name in found.keys() - warnings} == {
        f"make -C {shlex.quote(str(MASTER))} setup"
    }


def test_dry(project: MakeProject, tmp_path: Path) -> None:
    app = project()
    before = sorted(tmp_path.rglob("*"))
    done = app.fab("--dry", "doctor")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^(?:ok|warning) +(\S.*?)  ", done.stdout, re.MULTILINE)
    assert tuple(name for name in names if not OF_IMAGES.fullmatch(name)) == CHECKS
    for name in ("vagrant-libvirt", "vm", "container"):
        assert re.search(rf"^warning +{name} +not tried$", done.stdout, re.MULTILINE)
    assert "would run podman run --rm " in done.stdout
    assert sorted(tmp_path.rglob("*")) == before
