"""ansible-playbook as vagrantp runs it, in a sandbox: `play.py GALAXY ARGUMENT…`.

GALAXY: a folder of `roles` and `ansible_collections`, "" for none. $VAGRANTP_ABOVE: a JSON list of
folders above the playbook, whose `roles` and `collections` count after its own.
callbacks/vagrantp.py writes to /run/vagrantp/events; the module fetch, to /fetched.

`localhost` is the guest, and no connection leads anywhere else. A play that is for no host, or that
asks a question without an answer, is refused before the first task: exit status 1, and an event
`{"refused": [line, …]}`. Where collections are missing, --syntax-check goes on to the next task; it
ends with exit status 1 and `{"missing": {collection: [module, …]}}`. Everything else in a project's
ansible.cfg stays in force.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

EVENTS = Path("/run/vagrantp/events")
FETCHED = Path("/fetched")
LOCALHOST = "plays for localhost set up the guest"  # printed where there are such
ADDS_HOSTS = ("add_host", "group_by")  # modules after which a pattern may match what it did not
# The environment outranks ansible.cfg.
FORCED = {
    "ANSIBLE_ASK_PASS": "no",
    "ANSIBLE_ASK_VAULT_PASS": "no",
    "ANSIBLE_BECOME_ASK_PASS": "no",
    "ANSIBLE_CALLBACKS_ENABLED": "vagrantp",
    "ANSIBLE_FORCE_COLOR": "no",
    "ANSIBLE_HOME": "/home/.ansible",  # $HOME is that of the guest's user
    "ANSIBLE_HOST_PATTERN_MISMATCH": "ignore",  # it is judged here
    "ANSIBLE_INVENTORY_ENABLED": "host_list",
    "ANSIBLE_NOCOLOR": "yes",
    "ANSIBLE_NOCOWS": "yes",
    "ANSIBLE_SSH_CONTROL_PATH": "/tmp/ssh",
    "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
}
Theirs = Any  # ansible has no types


def main() -> None:
    """Run ansible-playbook in this process."""
    galaxy, *arguments = sys.argv[1:]
    os.environ.update(FORCED)
    if galaxy:
        sys.path.append(galaxy)  # ansible looks for collections there as well
    from ansible.cli import playbook as cli  # first of ansible's: it sets the others up

    # isort: split
    from ansible import constants
    from ansible.plugins.loader import callback_loader

    callback_loader.add_directory(str(Path(__file__).with_name("callbacks")))
    for folder in json.loads(os.environ.pop("VAGRANTP_ABOVE", "[]")):
        constants.DEFAULT_ROLES_PATH.append(f"{folder}/roles")
        sys.path.append(f"{folder}/collections")
    if galaxy:
        constants.DEFAULT_ROLES_PATH.append(f"{galaxy}/roles")
    _lead_to_the_guest()
    missing: dict[str, set[str]] = {}
    if "--syntax-check" in arguments:
        _collect(missing)

    class Executor(cli.PlaybookExecutor):  # type: ignore[misc]
        def run(self) -> Theirs:
            try:
                refused = _refused(self)
            finally:
                if missing:
                    _report("missing", {name: sorted(of) for name, of in missing.items()})
            if refused:
                _report("refused", refused)
            if refused or missing:
                return 1
            _fetch_into(FETCHED)
            return super().run()

    cli.PlaybookExecutor = Executor
    cli.PlaybookCLI.cli_executor(["ansible-playbook", *arguments])


def _report(kind: str, value: object) -> None:
    with EVENTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({kind: value}) + "\n")


def _collect(missing: dict[str, set[str]]) -> None:
    """Have tasks whose collection is not there pass, and put that into `missing`, with modules."""
    from ansible.errors import AnsibleParserError
    from ansible.parsing.mod_args import ModuleArgsParser

    parse = ModuleArgsParser.parse

    def parse_or_note(parser: Theirs, *args: object, **kwargs: object) -> Theirs:
        try:
            return parse(parser, *args, **kwargs)
        except AnsibleParserError as error:
            found = re.search(r"couldn't resolve module/action '([\w.]+)'", str(error))
            collection = _collection_of(found[1]) if found else ""
            if not found or not collection:
                raise
            missing.setdefault(collection, set()).add(found[1])
            return parse(parser, skip_action_validation=True)

    ModuleArgsParser.parse = parse_or_note


def _collection_of(module: str) -> str:
    """Return the collection that a module is in, if it is not there; "" for a misspelt module."""
    from ansible.utils.collection_loader import _collection_finder as finder

    if "." not in module:  # ansible-core knows where its former modules went
        routes = finder._get_collection_metadata("ansible.builtin")["plugin_routing"]
        module = (routes["modules"].get(module) or {}).get("redirect", "")
    namespace, _, rest = module.partition(".")
    collection = f"{namespace}.{rest.partition('.')[0]}"
    if not rest.partition(".")[2] or collection == "ansible.builtin":
        return ""
    try:
        finder._get_collection_metadata(collection)
    except ValueError:
        return collection
    return ""


def _lead_to_the_guest() -> None:
    """Make Ansible's localhost the guest, and every connection but ssh an error.

    The extra variables of playbooks.connection() say where ssh leads; nothing in a playbook
    outranks them.
    """
    from ansible.errors import AnsibleError
    from ansible.inventory.data import InventoryData
    from ansible.plugins.loader import connection_loader

    make, find = InventoryData._create_implicit_localhost, connection_loader.get_with_context

    def make_localhost(inventory: Theirs, pattern: str) -> Theirs:
        host = make(inventory, pattern)
        host.set_variable("ansible_connection", "ssh")
        host.set_variable("ansible_python_interpreter", "auto_silent")
        return host

    def find_ssh(name: str, *args: object, **kwargs: object) -> Theirs:
        if name not in ("ssh", "ansible.builtin.ssh"):
            raise AnsibleError(f"the connection {name} does not lead to the guest")
        return find(name, *args, **kwargs)

    InventoryData._create_implicit_localhost = make_localhost
    connection_loader.get_with_context = find_ssh
    sys.executable = "/usr/bin/python3"  # `ansible_playbook_python`, which is localhost's


def _fetch_into(folder: Path) -> None:
    """Make the module fetch write into `folder`: all else is read-only here."""
    from ansible.plugins.loader import action_loader

    fetch = action_loader.get("ansible.builtin.fetch", class_only=True)
    run = fetch.run

    def run_there(action: Theirs, *args: object, **kwargs: object) -> Theirs:
        arguments = action._task.args
        if "dest" in arguments:
            arguments["dest"] = _landing(folder, action._loader.get_basedir(), arguments["dest"])
        return run(action, *args, **kwargs)

    fetch.run = run_there


def _landing(folder: Path, project: str, destination: object) -> str:
    """Return where in `folder` a file goes that a playbook in `project` wants elsewhere."""
    text = str(destination)
    relative = os.path.relpath(text, project) if text.startswith(f"{project}/") else text
    parts = [part for part in Path(relative).parts if part not in ("/", "..")]
    return str(folder.joinpath(*parts)) + ("/" if text.endswith("/") else "")


def _refused(executor: Theirs) -> list[str]:
    """Return what is wrong with plays, a line each with its place; print if one is for localhost.

    What is known only after other plays have run is not judged.
    """
    from ansible.errors import AnsibleError
    from ansible.playbook import Playbook
    from ansible.playbook.play import Play
    from ansible.template import Templar

    inventory, loader = executor._inventory, executor._loader
    variables = executor._variable_manager
    refused, is_fixed, is_for_localhost = [], True, False
    guest = f"the guest is all, localhost and {inventory.get_hosts()[0].name}"
    validate = Play._validate_hosts  # it fails for an empty list, and does not say where
    Play._validate_hosts = lambda play, *rest: validate(play, *rest) if rest[-1] else None
    for path in executor._playbooks:
        playbook = Playbook.load(path, variable_manager=variables, loader=loader)
        for play in playbook.get_plays():
            loader.set_basedir(play._included_path or playbook._basedir)
            place, hosts = play.get_path(), []
            for asked in play.vars_prompt:
                name, default = asked["name"], asked.get("default")
                play.vars[name] = default
                if default is None and name not in variables.extra_vars:
                    text = f"this play asks for {name}, and PROVISION_VARS has no value for it"
                    refused.append(f"{place}: {text}")
            if play.hosts:
                try:
                    play.post_validate(Templar(loader, variables.get_vars(play=play)))
                except AnsibleError:
                    continue
                with suppress(AnsibleError):
                    hosts = inventory.get_hosts(play.hosts)
            is_for_localhost |= any(host.implicit for host in hosts)
            if not hosts and is_fixed:
                meant = ", ".join(play.hosts or []) or "nobody"
                refused.append(f"{place}: this play is for {meant}; {guest}")
            is_fixed &= not any(map(_adds_hosts, play.compile()))
    if is_for_localhost and not refused:
        print(LOCALHOST, flush=True)
    return refused


def _adds_hosts(task: Theirs) -> bool:
    """Say whether a task, or one in a block, may add hosts to the inventory."""
    if hasattr(task, "block"):
        return any(map(_adds_hosts, [*task.block, *task.rescue, *task.always]))
    return task.action.rpartition(".")[2] in ADDS_HOSTS


if __name__ == "__main__":
    main()
