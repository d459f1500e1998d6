"""Cloud images: a file, a URL or a name of the catalogue becomes a box in libvirt's pool, once."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vagrantp.core.documents import at_once, without_links
from vagrantp.core.errors import ConfigError, ProviderError
from vagrantp.core.places import xdg
from vagrantp.core.system import Host
from vagrantp.images import disks, store
from vagrantp.images.store import Box
from vagrantp.settings.parsers import is_web_url

CATALOGUE = Path(__file__).with_name("catalogue.toml")
ATTEMPTS = 3  # to go on with a download that broke off
MOST_CHECKSUMS = 4 * 1024**2  # bytes of a file of checksums
NO_RANGES = 33  # curl(1): the server cannot resume a download
# GNU's "digest  name" and "digest *name", BSD's "SHA256 (name) = digest", or a digest alone.
GNU = re.compile(r"^([0-9a-fA-F]{64,128})(?:\s+\*?(\S+))?\s*$", re.MULTILINE)
BSD = re.compile(r"^SHA\d+ \(([^)]+)\) = ([0-9a-fA-F]{64,128})\s*$", re.MULTILINE)
ALGORITHMS = {64: "sha256", 128: "sha512"}  # by the length of their digests


@dataclass(frozen=True)
class Source:
    """Where an image is: a file, or a URL, with the URL of its checksum where there is one."""

    place: str | Path
    checksums: str | None = None


def source(image: str) -> Source | None:
    """Return where BOX=`image` is as a cloud image, None where it is none."""
    if image.startswith("/"):
        return Source(Path(image))
    if "://" in image:
        return Source(image)
    known = _catalogue(CATALOGUE) | _catalogue(xdg("CONFIG", ".config") / CATALOGUE.name)
    return Source(**known[image]) if image in known else None


def _catalogue(path: Path) -> dict[str, dict[str, str]]:
    import tomllib  # takes 5 ms

    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    entries = {}
    for name, entry in found.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
            raise ConfigError(f'{path}: [{name}] must have a line url = "…"')
        urls = [entry["url"], *filter(None, [entry.get("checksums")])]
        if not all(isinstance(url, str) and is_web_url(url) for url in urls):
            raise ConfigError(f"{path}: [{name}] must have URLs of https or http")
        if not any(urlsplit(url).scheme == "https" for url in urls):
            text = f"{path}: [{name}] must not be http without a checksum by https"
            raise ConfigError(text, "use https for its url, or for its checksums")
        entries[name] = {"place": entry["url"], "checksums": entry.get("checksums")}
    return entries


def ensure(host: Host, image: str, found: Source, sha256: str | None, room: int) -> Box:
    """Return the box of a cloud image, in libvirt's pool.

    `sha256`: the checksum that it must have; `room`: DISK, in GiB. Raises ConfigError for one that
    has another or cannot be used, ProviderError when it cannot be downloaded.
    """
    if isinstance(found.place, Path):
        return _ensure_file(host, image, found.place, sha256, room)
    file = _download(host, found, sha256)
    if host.dry and not file.exists():
        return Box(f"vagrantp-{file.stem}-not-known-yet", 0, "cloud")
    try:
        disk = disks.look(image, file)
    except ConfigError:  # the next download may be better
        host.remove(file)
        raise
    disks.require_room(image, disk, room)
    box = _box(file, file.stat(), disk, sha256)
    return store.put_into_pool(
        host, box, lambda work, folder: store.put_image(host, work, folder, disk, file)
    )


def _ensure_file(host: Host, image: str, file: Path, sha256: str | None, room: int) -> Box:
    """Return the box of an image that the person has, in libvirt's pool.

    Somebody else, a guest for one, may write that file or exchange it at any time: it is opened
    once, and what is compared with `sha256` and used is a copy.
    """
    opener = at_once if host.dry else without_links  # then it is the real path that was granted
    with disks.opened(image, file, opener) as stream:
        disk = disks.examine(image, stream)
        disks.require_room(image, disk, room)
        box = _box(file, os.fstat(stream.fileno()), disk, sha256)

        def make(work: Path, folder: Path) -> None:
            copy = work / "copy"
            with host.progress.stage("copy the image"):
                store.copy(host, image, stream, copy)
            if host.dry:
                return store.put_image(host, work, folder, disk, copy)
            if sha256:
                with host.progress.stage("checksum"):
                    _compare(image, copy, sha256)
            if disks.look(image, copy) != disk:
                raise ConfigError(f".env: BOX {image} changed while it was copied")
            store.put_image(host, work, folder, disk, copy)

        return store.put_into_pool(host, box, make)


def _box(file: Path, facts: os.stat_result, disk: disks.Disk, sha256: str | None) -> Box:
    identity = f"{store.MADE} {file} {facts.st_mtime_ns} {facts.st_size} {sha256}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    return Box(f"vagrantp-{store.slug(file.stem)}-{digest}", disk.virtual_size, "cloud")


def _download(host: Host, found: Source, sha256: str | None) -> Path:
    """Return the downloaded file, which is whole and has the right checksum."""
    url = str(found.place)
    key = hashlib.sha256(f"{url} {sha256}".encode()).hexdigest()[:20]
    cache = store.cache() / "images"
    name = unquote(urlsplit(url).path).rpartition("/")[2] or "image"
    target = cache / key / name
    with host.lock(store.cache(), f"download {key}", f"another download of {name}"):
        if target.exists():
            return target
        host.make_dir(cache)
        part = cache / f"{key}.part"
        with host.progress.stage("download", name):
            _fetch(host, url, part)
        if host.dry:
            return target
        if expected := sha256 or _published(host, found, name):
            with host.progress.stage("checksum"):
                try:
                    _compare(url, part, expected)
                except ConfigError:
                    host.remove(part)
                    raise
        host.make_dir(target.parent)
        host.move(part, target)
    return target


def _fetch(host: Host, url: str, part: Path) -> None:
    """Download into `part`, from where an earlier try broke off."""
    etag = part.with_suffix(".etag")
    for attempt in range(1, ATTEMPTS + 1):
        resume = ["--continue-at", "-"] if part.exists() else []
        if resume and etag.exists() and (tag := etag.read_text().strip()):
            resume += ["--header", f"If-Range: {tag}"]  # not in the middle of a newer file
        try:
            with _curl(host, url) as curl:
                host.change(
                    [
                        *(*curl, "--connect-timeout", "30", "--speed-limit", "1000"),
                        *("--speed-time", "60", "--etag-save", str(etag)),
                        *(*resume, "--output", str(part)),
                    ],
                    what="download",
                    timeout=store.DOWNLOAD_TIMEOUT,
                    note=lambda line: _show_percent(host, line),
                    explain=_curls_reason,
                )
        except ProviderError as error:
            if f"curl: ({NO_RANGES})" in error.message:
                host.remove(part)
            if attempt == ATTEMPTS:
                error.hint = "fab up continues where it stopped"
                raise
        else:
            host.remove(etag)
            return


@contextmanager
def _curl(host: Host, url: str) -> Iterator[list[str]]:
    """Yield the start of argv that fetches a URL.

    The URL, which may hold a password, is in a file: everyone on this host can read argv.
    """
    schemes = "=https" if urlsplit(url).scheme == "https" else "=http,https"
    quoted = url.replace("\\", "\\\\").replace('"', '\\"')
    with host.scratch(store.cache()) as folder:
        host.write(folder / "curl", f'url = "{quoted}"\n')
        yield [
            *("curl", "--fail", "--location", "--show-error", "--globoff"),
            *("--proto", schemes, "--proto-redir", schemes, "--config", str(folder / "curl")),
        ]


def _show_percent(host: Host, line: str) -> None:
    """Show what curl's progress meter starts with."""
    percent = line.split()[0]
    if percent.isdigit():
        host.progress.done(lambda: f"{percent} %")


def _curls_reason(lines: list[str]) -> str:
    errors = [line[line.index("curl: (") :] for line in lines if "curl: (" in line]
    return errors[-1] if errors else ""


def _published(host: Host, found: Source, name: str) -> str | None:
    """Return the checksum that is published beside an image, by the catalogue."""
    if not found.checksums:
        return None
    with _curl(host, found.checksums) as curl:
        text = host.answer([*curl, "--silent", "--max-filesize", str(MOST_CHECKSUMS)])
    entries = checksums(text)
    digests = [digest for known, digest in entries if known in (name, f"./{name}")]
    if not digests and len(entries) == 1:
        digests = [entries[0][1]]
    if not digests or len(digests[0]) not in ALGORITHMS:
        raise ProviderError(f"{found.checksums} has no checksum of {name}")
    return digests[0]


def checksums(text: str) -> list[tuple[str | None, str]]:
    """Return the names and digests in a checksum file; None for a digest without a name."""
    found = [(match[2], match[1]) for match in GNU.finditer(text)]
    return found + [(match[1], match[2]) for match in BSD.finditer(text)]


def _compare(image: str, file: Path, expected: str) -> None:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, ALGORITHMS[len(expected)]).hexdigest()
    if digest != expected.lower():
        raise ConfigError(
            f"{image} has the checksum {digest}, not {expected}",
            "either it is not the image that you mean, or the checksum belongs to another version",
        )
