"""CLOUD_INIT: what this host's cloud-init says of the file, and the wait for the guest's."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import ProviderError, ProvisionError
from vagrantp.core.system import Host
from vagrantp.guest import cloud_init
from vagrantp.instance.record import Instance

# As 22.4.2 and 25.1.4 print it.
OLD, NEW = "Error:\n{}\n", "Error: {}\n\nError: Invalid schema: user-data\n\nInvalid user-data x\n"
ODD = "Additional properties are not allowed ('{}' was unexpected)"
TYPES = (
    "users.0: {'a': 1, 'b': 2} is not of type 'array', users.0: {'a': 1} is not of type 'string'"
)


@pytest.mark.parametrize("form", [OLD, NEW])
@pytest.mark.parametrize(
    ("errors", "found"),
    [
        ("packages: 5 is not of type 'array'", 1),
        (f"packges: {ODD.format('packges')}", 1),
        (f"users.0: {ODD.format('dos')}, {TYPES}", 1),
        (f"hostname: ['a'] is not of type 'string', users.0: {ODD.format('dos')}, {TYPES}", 2),
    ],
)
def test_what_this_hosts_cloud_init_finds(form: str, errors: str, found: int) -> None:
    told = cloud_init.schema_errors(form.format(f"Cloud config schema errors: {errors}"))
    assert errors.startswith(", ".join(told))
    assert len(told) == found


def test_what_is_no_schema_error_is_one() -> None:
    assert cloud_init.schema_errors("Error: no such file\n") == ["Error: no such file"]


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an ssh on PATH that runs commands here, where `sudo` does what the file `next` says."""
    programs = {
        "ssh": 'for command; do :; done\neval "$command"\n',
        "cat": f'[ "$1" != /proc/sys/kernel/random/boot_id ] || set -- {tmp_path}/boot\n'
        'exec /bin/cat "$@"\n',
        "sudo": f"cd {tmp_path}\nread -r what < next\nsed -i 1d next\n"
        '[ "$what" != reboot ] || date +%N >> boot\n[ "$what" = done ]\n',
    }
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)
    (tmp_path / "boot").write_text("one\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "vagrantp/app-0123abcd/logs").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("happens", "rejoined"),
    [
        (["done"], 0),
        (["reboot", "done"], 1),
        (["reboot", "lost", "reboot", "lost", "lost", "done"], 5),  # some are lost as it goes down
        (["lost", "lost", "lost", "done"], None),
        (["reboot"] * 11, None),
    ],
)
def test_the_wait_goes_over_reboots(guest: Path, happens: list[str], rejoined: int | None) -> None:
    (guest / "next").write_text("".join(f"{one}\n" for one in happens))
    instance = Instance("app", "0123abcd", guest, "vm")
    calls: list[int] = []
    host = Host(Context())
    if rejoined is None:
        with pytest.raises(ProviderError, match="cloud-init failed"):
            cloud_init.wait(host, instance, "1", lambda: calls.append(1))
        return
    with pytest.raises(ProvisionError, match=r"cloud-init\.json: No such"):  # none is there
        cloud_init.wait(host, instance, "1", lambda: calls.append(1))
    assert len(calls) == rejoined


def test_a_guest_that_shuts_down_for_good(guest: Path) -> None:
    (guest / "next").write_text("lost\n")
    instance = Instance("app", "0123abcd", guest, "vm")

    def rejoin() -> None:
        raise ProviderError("app has shut down")

    with pytest.raises(ProviderError, match="has shut down") as raised:
        cloud_init.wait(Host(Context()), instance, "1", rejoin)
    assert "fab up starts it" in str(raised.value.hint)
