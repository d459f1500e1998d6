"""requirements.yml: what of it is understood, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vagrantp.core.errors import ConfigError
from vagrantp.guest import galaxy
from vagrantp.guest.requirements import Collection, Requirements, Role, parse

FILE = "requirements.yml"


def roles(*entries: object) -> Requirements:
    return parse({FILE: json.dumps({"roles": entries})})


def collections(*entries: object) -> Requirements:
    return parse({FILE: json.dumps({"collections": entries})})


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("geerlingguy.docker", Role("geerlingguy.docker")),
        ("a-b.c_d,1.2.3", Role("a-b.c_d", version="1.2.3")),
        ("a.b,v1,short", Role("a.b", "short", version="v1")),
        ({"name": "a.b", "version": 1.5}, Role("a.b", version="1.5")),
        ({"src": "a.b", "name": "short"}, Role("a.b", "short")),
        ({"role": "a.b"}, Role("a.b")),
        ("https://example.com/r.tar.gz", Role("https://example.com/r.tar.gz")),
        ("git+https://example.com/r", Role("https://example.com/r", scm="git")),
        ({"src": "https://example.com/r.git"}, Role("https://example.com/r.git", scm="git")),
        (
            {
                "src": "https://example.com:443/a/r",
                "scm": "git",
                "version": "feature/x",
                "name": "r",
            },
            Role("https://example.com:443/a/r", "r", "git", "feature/x"),
        ),
        ("ansible.posix", Collection("galaxy", "ansible.posix")),
        (
            {
                "name": "a.b",
                "version": ">=1.0.0,<2.0.0",
                "source": "https://galaxy.example.com/api/",
            },
            Collection("galaxy", "a.b", "https://galaxy.example.com/api/", ">=1.0.0,<2.0.0"),
        ),
        ({"name": "a.b", "type": "galaxy", "version": "*"}, Collection("galaxy", "a.b", "", "*")),
        (
            "git+https://example.com/c.git,main",
            Collection("git", "", "https://example.com/c.git", "main"),
        ),
        (
            {"name": "https://example.com/c.git#/sub/folder", "version": "1a2b"},
            Collection("git", "", "https://example.com/c.git#/sub/folder", "1a2b"),
        ),
        (
            {"name": "a.b", "source": "https://example.com/c", "type": "git"},
            Collection("git", "a.b", "https://example.com/c"),
        ),
        (
            {"name": "https://example.com/a-b-1.0.0.tar.gz", "type": "url"},
            Collection("url", "", "https://example.com/a-b-1.0.0.tar.gz"),
        ),
        (
            {"source": "https://example.com/a-b.tar.gz"},
            Collection("url", "", "https://example.com/a-b.tar.gz"),
        ),
    ],
)
def test_what_is_understood(entry: object, found: Role | Collection) -> None:
    if isinstance(found, Role):
        assert roles(entry) == Requirements(roles=(found,))
    else:
        assert collections(entry) == Requirements(collections=(found,))


SOURCES = (
    *("role.tar.gz", "./role.tar.gz", "../role", "/etc", "~/role", "file:///etc/passwd", "roles"),
    *("http://example.com/r.tar.gz", "HTTPS://example.com/r.tar.gz", "ftp://example.com/r.tar.gz"),
    *("git@github.com:a/b.git", "git+git@github.com:a/b.git", "ssh://git@example.com/r.git"),
    *("git+ssh://example.com/r.git", "git+file:///srv/r.git", "git+http://example.com/r.git"),
    *("git://example.com/r.git", "git+git+https://example.com/r.git", "hg+https://example.com/r"),
    *("ext::sh -c id", "git+ext::sh -c id", "fd::17", "-x", "--upload-pack=id", "git+-oProxy=id"),
    *("https://me:secret@example.com/r.git", "https://example.com@10.0.0.1/r.git"),
    *("https://10.0.0.1/r.git", "https://[::1]/r.git", "https://127.1/r.git", "https://0x7f.1/r"),
    *("https://localhost/r.git", "https://example.com:8443/r.git", "https://example.com:22/r.git"),
    *("https://example.com/../r.git", "https://example.com/a b.git", "https://example.com"),
    *(
        "https://example.com/r.git\n--config=x",
        "https://example.com/r.tar.gz;id",
        "a.b;id",
        "a.b\nc",
    ),
    *("https://example.com/$(id)/r.git", "https://example.com\\@10.0.0.1/r", "https:///etc/passwd"),
    *("https://example.com/a+b.tar.gz", "https://exämple.com/r.git", "..", "a..", ".a.b", "", " "),
)


@pytest.mark.parametrize("source", SOURCES)
def test_other_sources_are_refused_in_every_place(source: str) -> None:
    for read, entries in (
        (roles, (source, {"src": source}, {"name": source}, {"src": source, "scm": "git"})),
        (
            collections,
            (
                *(source, {"name": source}, {"source": source}, {"name": source, "type": "git"}),
                {"name": source, "type": "url"},
                *([{"name": "a.b", "source": source}] if source.strip() else []),
            ),
        ),
    ):
        for entry in entries:
            with pytest.raises(ConfigError):
                read(entry)


@pytest.mark.parametrize(
    ("kind", "entry", "problem"),
    [
        (
            "roles",
            {"include": "other.yml"},
            'keys must be among src, role, name, version, scm, got "include"',
        ),
        ("roles", {"src": "a.b", "scm": "hg"}, 'scm must be git, got "hg"'),
        ("roles", {"src": "a.b", "name": "../x"}, 'name must be a plain name, got "../x"'),
        ("roles", {"src": "a.b", "name": "-x"}, 'name must be a plain name, got "-x"'),
        ("roles", "a.b,--x", 'version must be a release, tag, branch or commit, got "--x"'),
        ("roles", "a.b,1,x,y", 'it must be SRC[,VERSION[,NAME]], got "a.b,1,x,y"'),
        ("roles", ["a.b"], 'it must be a name, a URL or a mapping, got ["a.b"]'),
        ("roles", {"src": ["a.b"]}, 'src must be text, got ["a.b"]'),
        ("roles", {"src": "a.b", "version": True}, "version must be text, got true"),
        (
            "collections",
            {"name": "a.b", "type": "dir"},
            'type must be galaxy, git or url, got "dir"',
        ),
        (
            "collections",
            {"name": "a.b", "type": "file"},
            'type must be galaxy, git or url, got "file"',
        ),
        (
            "collections",
            {"source": ".", "type": "subdirs"},
            'type must be galaxy, git or url, got "subdirs"',
        ),
        (
            "collections",
            {"name": "a.b", "signatures": ["file:///x"]},
            'keys must be among name, version, source, type, got "signatures"',
        ),
        (
            "collections",
            {"name": "a.b", "source": "my_server"},
            'source must be the https URL of a Galaxy server, got "my_server"',
        ),
        (
            "collections",
            {"name": "a.b", "version": "--pre"},
            'version must be a release or a range of them, got "--pre"',
        ),
        (
            "collections",
            {"name": "https://example.com/c.git", "version": "-x"},
            'version must be a release, tag, branch or commit, got "-x"',
        ),
        (
            "collections",
            "https://example.com/c.git#/../x",
            "name must be namespace.name, an https URL of an archive, or git+https://…, "
            'got "https://example.com/c.git#/../x"',
        ),
        (
            "collections",
            {"name": "../x", "source": "https://example.com/c.git"},
            'name must be namespace.name, got "../x"',
        ),
        (
            "collections",
            {"source": "git+https://example.com/c", "type": "url"},
            'type must be git, got "url"',
        ),
    ],
)
def test_what_is_wrong_is_said(kind: str, entry: object, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse({FILE: json.dumps({kind: ["a.b", entry]})})
    assert error.value.message == f"{FILE}: {kind}, entry 2: {problem}"


def test_every_problem_is_in_the_message() -> None:
    with pytest.raises(ConfigError) as error:
        parse(
            {"a.yml": "roles: [-x, a.b, /y]", "b.yml": "]", "c.yml": "roles: x\nmore: 1", "d": "1"}
        )
    assert error.value.message.splitlines() == [
        *(
            f"a.yml: roles, entry {number}: src must be namespace.name, "
            f'an https URL of an archive, or git+https://…, got "{found}"'
            for number, found in ((1, "-x"), (3, "/y"))
        ),
        "b.yml must be a file of YAML; line 1 is not",
        'c.yml: roles must be a list, got "x"',
        'c.yml: it must have roles: and collections: only, got "more"',
        "d: it must have roles: and collections:, got 1",
    ]


def test_a_message_is_short_and_printable() -> None:
    with pytest.raises(ConfigError) as error:
        roles("\x1b]52;c;\x07" + "x" * 10_000, *["-"] * 1000)
    assert "\x1b" not in error.value.message
    assert len(error.value.message) < 5000
    assert error.value.message.endswith("and 981 more")


@pytest.mark.parametrize("key", ["2001-01-01", "1.5", "~", "0x1", "!!binary aGk=", "? [a]\n"])
def test_keys_of_any_type_are_refused_in_words(key: str) -> None:
    for text in (f"{key}: x", f"roles:\n- {key}: x", f"roles:\n- src: {{{key}: x}}"):
        with pytest.raises(ConfigError):
            parse({FILE: text})


def test_files_are_taken_together() -> None:
    old = "- a.b\n- src: git+https://example.com/r\n"
    new = "collections: [c.d]\nroles: [a.b]\n"
    found = parse({"roles/requirements.yml": old, "requirements.yml": new, "empty.yml": ""})
    assert found == Requirements(
        (Role("a.b"), Role("https://example.com/r", scm="git")), (Collection("galaxy", "c.d"),)
    )
    assert json.loads(found.to_json("roles")) == {
        "roles": [{"src": "a.b"}, {"src": "https://example.com/r", "scm": "git"}]
    }
    assert parse({FILE: found.to_json("roles")}).roles == found.roles
    assert parse({FILE: found.to_json("collections")}).collections == found.collections


def test_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("roles: [a.b]")
    folder = tmp_path / "project"
    (folder / "roles").mkdir(parents=True)
    (folder / "requirements.yml").symlink_to("../secret")
    (folder / "roles/requirements.yml").symlink_to("/dev/zero")
    (folder / "collections").symlink_to(tmp_path)
    (tmp_path / "requirements.yaml").write_text("collections: [a.b]")
    with pytest.raises(ConfigError) as error:
        galaxy.required(folder / "site.yml", folder)
    assert error.value.message.splitlines() == [
        f"{folder / name} must be a file in this project, and is a link out of it"
        for name in ("requirements.yml", "roles/requirements.yml", "collections/requirements.yaml")
    ]


def test_a_link_within_the_folder_is_read_and_a_loop_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles/requirements.yml").write_text("roles: [a.b]")
    (tmp_path / "requirements.yml").symlink_to("roles/requirements.yml")
    assert galaxy.required(tmp_path / "site.yml", tmp_path) == Requirements((Role("a.b"),))
    (tmp_path / "requirements.yaml").symlink_to("requirements.yaml")
    with pytest.raises(ConfigError) as error:
        galaxy.required(tmp_path / "site.yml", tmp_path)
    why = "must be a file that can be read (Too many levels of symbolic links)"
    assert error.value.message == f"{tmp_path / 'requirements.yaml'} {why}"


def test_files_above_count_up_to_the_project(tmp_path: Path) -> None:
    project = tmp_path / "app"
    (project / "plays/web").mkdir(parents=True)
    playbook = project / "plays/web/site.yml"
    for folder, role in (
        (project / "plays/web", "a.near"),
        (project, "a.far"),
        (tmp_path, "a.out"),
    ):
        (folder / "requirements.yml").write_text(f"roles: [{role}]\n")
    assert galaxy.required(playbook, project).roles == (Role("a.near"), Role("a.far"))
    outside = tmp_path / "site.yml"
    assert galaxy.required(outside, project).roles == (Role("a.out"),)
