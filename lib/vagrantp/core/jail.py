"""A program in a sandbox: `python3 -IS jail.py SPEC PROGRAM ARGUMENT…`, run by core/sandbox.py.

SPEC is JSON: `binds`: [[here, inside, is_writable], …]; `env`; `cwd`; `memory` in MB of address
space, `file_size` in MB, `cpu` in seconds or null, `tmp` in MB; `user`: who runs it where root
starts it. bubblewrap(1) does the work. For root it is no sandbox by itself, as its uid 0 is the
host's: so the program runs as `user`, in a user namespace of its own that grants it one thing, to
read what root may read of what it sees (docs/adr/0025-sandbox.md).
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import resource
import struct
import sys
from typing import NoReturn

MIB = 1024**2
PROCESSES = 1024  # threads count, too; set inside, where nobody else's do
# bwrap where AppArmor lets it make namespaces (playbooks/host.yml), or else the distribution's.
BWRAP = ("/usr/local/lib/vagrantp/bwrap", "/usr/bin/bwrap")
CLONE_NEWUSER = 0x10000000  # linux/sched.h
NAMESPACES = 0x7E020080  # all CLONE_NEW* of linux/sched.h
# What programs need of /etc. Not whole folders: private keys lie beside certificates.
OF_ETC = (
    *("alternatives", "crypto-policies", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"),
    *("ca-certificates/extracted", "ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf"),
    *("pki/ca-trust/extracted", "pki/tls/cert.pem", "pki/tls/certs", "pki/tls/openssl.cnf"),
)
LINKS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")  # of /, where /usr has been merged
# System calls that no program needs that is run here, by their numbers on x86_64 and aarch64
# (asm/unistd_64.h, asm-generic/unistd.h); None where there is none.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    **{"ptrace": (101, 117), "syslog": (103, 116), "personality": (135, 92)},
    **{"modify_ldt": (154, None), "pivot_root": (155, 41), "adjtimex": (159, 171)},
    **{"chroot": (161, 51), "acct": (163, 89), "settimeofday": (164, 170), "mount": (165, 40)},
    **{"umount2": (166, 39), "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142)},
    **{"sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None)},
    **{"ioperm": (173, None), "init_module": (175, 105), "delete_module": (176, 106)},
    **{"quotactl": (179, 60), "lookup_dcookie": (212, 18), "clock_settime": (227, 112)},
    **{"kexec_load": (246, 104), "add_key": (248, 217), "request_key": (249, 218)},
    **{"keyctl": (250, 219), "unshare": (272, 97), "perf_event_open": (298, 241)},
    **{"fanotify_init": (300, 262), "name_to_handle_at": (303, 264)},
    **{"open_by_handle_at": (304, 265), "clock_adjtime": (305, 266), "setns": (308, 268)},
    **{"process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"finit_module": (313, 273), "kexec_file_load": (320, 294), "bpf": (321, 280)},
    **{"userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426)},
    **{"io_uring_register": (427, 427), "open_tree": (428, 428), "move_mount": (429, 429)},
    **{"fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433)},
    **{"pidfd_getfd": (438, 438), "process_madvise": (440, 440), "mount_setattr": (442, 442)},
    **{"quotactl_fd": (443, 443)},
}
NEWER = 444  # numbers from here on are of calls that nobody looked at; programs do without them
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*
CLONE, CLONE3, SOCKET, IOCTL = (56, 220), 435, (41, 198), (16, 29)
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into a terminal
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h


def main() -> None:
    """Replace this process by the program in its sandbox."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # whoever called may have left some open
    spec, *command = sys.argv[1:]
    asked = json.loads(spec)
    bwrap = next(filter(os.path.exists, BWRAP), None)
    if bwrap is None:
        _fail("bubblewrap is not installed")
    is_root = os.getuid() == 0
    prefix: list[str] = []
    if is_root:
        prefix = _become(asked["user"], asked["binds"])
    prefix += ["prlimit", f"--nproc={PROCESSES}", "--"]
    argv = [bwrap, *_arguments(asked, is_root), "--", *prefix, *command]
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: asked["file_size"] * MIB,
        resource.RLIMIT_AS: asked["memory"] * MIB,
    }
    if asked["cpu"]:
        limits[resource.RLIMIT_CPU] = asked["cpu"]
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    os.execv(bwrap, argv)


def _fail(why: str) -> NoReturn:
    print(f"sandbox: {why}", file=sys.stderr)
    raise SystemExit(125)


def _become(user: str, binds: list[tuple[str, str, bool]]) -> list[str]:
    """Enter a user namespace, and return argv that makes a program `user` in it.

    The namespace has all ids, so that root's files stay root's. CAP_DAC_READ_SEARCH in it reads
    them, and opens nothing outside of what the program sees.
    """
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        _fail(f"there is no user {user}")
    for here, _, is_writable in binds:
        if is_writable:
            os.chown(here, found.pw_uid, found.pw_gid, follow_symlinks=False)
    _enter_user_namespace()
    capability = "dac_read_search"
    return [
        *("setpriv", f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}", "--clear-groups"),
        *(f"--inh-caps=-all,+{capability}", f"--ambient-caps=-all,+{capability}"),
        # else access(2) does as if there were none (access_override_creds in fs/open.c)
        *("--securebits=+no_setuid_fixup", f"--bounding-set=-all,+{capability}"),
        *("--no-new-privs", "--"),
    ]


def _enter_user_namespace() -> None:
    """Enter one in which every id is what it is outside, and no further one can be made."""
    me, (entered, enter) = os.getpid(), os.pipe()
    if os.fork() == 0:  # the parent has lost its rights outside by then
        os.close(enter)
        os.read(entered, 1)
        for kind in ("uid", "gid"):
            with open(f"/proc/{me}/{kind}_map", "w", encoding="ascii") as file:  # noqa: PTH123
                file.write("0 0 4294967295")
        os._exit(0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER):
        _fail(f"no user namespace: {os.strerror(ctypes.get_errno())}")
    os.close(enter)
    os.close(entered)
    _, status = os.wait()
    if status:
        _fail("no user namespace: its ids cannot be written")
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("0")


def _arguments(asked: dict[str, object], is_root: bool) -> list[str]:
    """Return bwrap's options."""
    binds, env = asked["binds"], asked["env"]
    assert isinstance(binds, list)
    assert isinstance(env, dict)
    uid = pwd.getpwnam(str(asked["user"])).pw_uid if is_root else os.getuid()
    tmp = str(int(str(asked["tmp"])) * MIB)
    passwd = f"sandbox:x:{uid}:65534::/home:/bin/sh\n"
    capabilities = ("SETUID", "SETGID", "SETPCAP", "DAC_READ_SEARCH") if is_root else ()
    found = [
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
        *("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv"),
        *(() if is_root else ("--unshare-user", "--disable-userns")),
        *("--cap-drop", "ALL"),
        *(part for name in capabilities for part in ("--cap-add", f"CAP_{name}")),
        *("--hostname", "sandbox", "--seccomp", _descriptor(_filter())),
        *("--ro-bind", "/usr", "/usr", "--dev", "/dev"),
        *("--size", tmp, "--tmpfs", "/tmp", "--size", tmp, "--tmpfs", "/home"),
        *("--size", tmp, "--tmpfs", "/dev/shm"),
        *("--chmod", "1777", "/tmp", "--chmod", "1777", "/home"),
        *("--chmod", "1777", "/dev/shm"),
        *("--ro-bind-data", _descriptor(passwd.encode()), "/etc/passwd"),
        *("--ro-bind-data", _descriptor(b"127.0.0.1 localhost\n"), "/etc/hosts"),
    ]
    for name in LINKS:
        if os.path.islink(f"/{name}"):  # noqa: PTH114
            found += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]  # noqa: PTH115
        else:
            found += ["--ro-bind-try", f"/{name}", f"/{name}"]
    for name in OF_ETC:
        found += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for here, inside, is_writable in binds:
        found += ["--bind" if is_writable else "--ro-bind", here, inside]
    for name, value in env.items():
        found += ["--setenv", name, value]
    return [*found, "--chdir", str(asked["cwd"]), "--remount-ro", "/dev", "--remount-ro", "/"]


def _descriptor(content: bytes) -> str:
    """Return the number of an inherited descriptor from which bwrap reads `content`."""
    descriptor = os.memfd_create("sandbox", 0)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return str(descriptor)


def _filter() -> bytes:
    """Return the seccomp filter: a program of classic BPF (linux/filter.h) over seccomp_data."""
    machine = os.uname().machine
    if machine not in MACHINES:
        _fail(f"not supported on {machine}")
    column, architecture = MACHINES[machine]
    number, low, first, second = 0, 4, 16, 24  # offsets of: nr, arch, args[0], args[1]

    def load(offset: int) -> bytes:
        return struct.pack("=HBBI", 0x20, 0, 0, offset)

    def skip_unless(value: int, count: int, kind: int = 0x15) -> bytes:  # JEQ
        return struct.pack("=HBBI", kind, 0, count, value)

    def end(action: int) -> bytes:
        return struct.pack("=HBBI", 0x06, 0, 0, action)

    def skip_if(value: int, count: int) -> bytes:
        return struct.pack("=HBBI", 0x15, count, 0, value)

    program = [load(low), skip_if(architecture, 1), end(KILL), load(number)]
    program += [skip_unless(0x40000000, 1, 0x35), end(KILL)]  # JGE: x32
    program += [skip_unless(NEWER, 1, 0x35), end(ERRNO | ENOSYS)]
    for numbers in REFUSED.values():
        if (known := numbers[column]) is not None:
            program += [skip_unless(known, 1), end(ERRNO | EPERM)]
    program += [skip_unless(CLONE3, 1), end(ERRNO | ENOSYS)]  # its flags are out of sight
    program += [skip_unless(CLONE[column], 3), load(first)]
    program += [skip_unless(NAMESPACES, 1, 0x45), end(ERRNO | EPERM), load(number)]  # JSET
    program += [skip_unless(SOCKET[column], 2 + len(FAMILIES)), load(first)]
    for left, family in enumerate(FAMILIES):
        program.append(skip_if(family, len(FAMILIES) - left))
    program += [end(ERRNO | EAFNOSUPPORT), load(number)]
    program += [skip_unless(IOCTL[column], 1 + 2 * len(TERMINAL)), load(second)]
    for request in TERMINAL:
        program += [skip_unless(request, 1), end(ERRNO | EPERM)]
    return b"".join([*program, end(ALLOW)])


if __name__ == "__main__":
    main()
