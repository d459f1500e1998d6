"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import sys
from functools import cache
from itertools import chain
from pathlib import Path

LIB = Path(__file__).resolve().parents[2] / "lib/vagrantp"
# Arrows point one way: a folder may import only what stands before it; the modules beside the
# folders come last.
FOLDERS = (
    *("core", "settings", "instance", "images", "guest", "net", "providers", "host", "verbs"),
    *("cli", "fab", "make"),
)
STRANGERS = {("net", "images")}  # and these know nothing of one another
# What starts processes, changes files, takes locks and handles signals.
SYSTEM = {LIB / f"core/{name}.py" for name in ("files", "locks", "process", "start", "system")}
MODULES = sorted(LIB.rglob("*.py"))
THEY_RUN_BY_THEMSELVES = {"fetch.py", "jail.py", "play.py", "vagrantp.py"}


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all that is in the syntax tree of a file."""
    return [*ast.walk(parsed(path))]


def imports(path: Path) -> set[str]:
    """Return the modules of vagrantp that a file imports, as paths below lib/vagrantp."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vagrantp."):
            base = str(node.module).removeprefix("vagrantp.").replace(".", "/")
            is_folder = (LIB / base).is_dir()
            found |= {f"{base}/{a.name}" if is_folder else base for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "vagrantp":
            found |= {alias.name for alias in node.names}
    return found


def modules() -> dict[str, set[str]]:
    """Return what each module imports, by its path below lib/vagrantp without `.py`."""
    found = {p.relative_to(LIB).with_suffix(""): imports(p) for p in MODULES}
    return {str(path): imported for path, imported in found.items()}


def folder(module: str) -> str:
    """Return the first part of a module's path."""
    return module.partition("/")[0]


def test_arrows_point_one_way() -> None:
    for module, imported in modules().items():
        if folder(module) == "__init__":
            continue
        for other in map(folder, imported):
            if other != folder(module):
                assert FOLDERS.index(other) < FOLDERS.index(folder(module)), (module, other)
                assert (folder(module), other) not in STRANGERS, (module, other)


def modules_in(path: Path) -> set[str]:
    """Return the modules that a file imports."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "vagrantp_guard" else {str(node.module)}
    return found


# What is reported is in the same list as what is closed, and has the same reader. It is pure.
KNOW_THE_LIST = {LIB / "instance/habits.py"}
# Run as a guest's owner, or imported by vagrantp: with no other module of guard than these.
STANDING_ALONE: dict[str, set[str]] = {
    "contract.py": set(),
    "fusermount3.py": set(),
    "forward.py": {"vagrantp_guard.carry"},
    "carry.py": set(),
}


def test_the_two_sides_of_the_root_boundary_share_the_contract_alone() -> None:
    for path in MODULES:
        of_guard = {name for name in modules_in(path) if name.startswith("vagrantp_guard")}
        if path in KNOW_THE_LIST:
            of_guard -= {"vagrantp_guard.protected"}
        assert of_guard <= {"vagrantp_guard.contract"}, path
    for path in LIB.with_name("vagrantp_guard").glob("*.py"):
        for name in modules_in(path):
            package, _, _ = name.partition(".")
            assert package in {"vagrantp_guard", *sys.stdlib_module_names}, f"{path}: {name}"
        if path.name in STANDING_ALONE:
            ours = {name for name in modules_in(path) if name.startswith("vagrantp")}
            assert ours <= STANDING_ALONE[path.name], path


def test_no_module_of_guard_is_long() -> None:
    for path in LIB.with_name("vagrantp_guard").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


def test_nothing_imports_itself_by_way_of_others() -> None:
    graph = modules()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        for other in graph.get(module, set()) - seen:
            walk(other, (*way, module))
        seen.add(module)

    seen: set[str] = set()
    for module in graph:
        walk(module, ())


def test_only_system_starts_processes_and_handles_signals() -> None:
    for path in MODULES:
        if path in SYSTEM or path.name in THEY_RUN_BY_THEMSELVES:
            continue
        for node in nodes(path):
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            assert not {"subprocess", "signal", "fcntl"} & set(names), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("os", "system"), ("os", "execvp")}, path
                assert (node.value.id, node.attr) != ("sys", "exit"), path
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), path


def test_only_show_prints() -> None:
    """It escapes what is not printable."""
    for path in MODULES:
        if path.name not in {"text.py", *THEY_RUN_BY_THEMSELVES}:
            for node in nodes(path):
                assert not (isinstance(node, ast.Name) and node.id == "print"), path


MOST_LINES = 350


def test_no_module_is_too_long_to_read() -> None:
    lengths = {
        str(path.relative_to(LIB)): path.read_text(encoding="utf-8").count("\n") for path in MODULES
    }
    assert not {name for name, length in lengths.items() if length > MOST_LINES}


def test_no_name_hides_the_module_that_it_is_made_with() -> None:
    """In a comprehension, mypy does not find that."""
    for path in MODULES:
        imported = {
            alias.asname or alias.name
            for node in parsed(path).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        functions = [node for node in nodes(path) if isinstance(node, ast.FunctionDef)]
        for node in chain.from_iterable(map(ast.walk, functions)):
            if isinstance(node, ast.Assign):
                bound = {target.id for target in node.targets if isinstance(target, ast.Name)}
                if bound & imported:
                    used = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
                    assert not bound & used & imported, f"{path}:{node.lineno}: {bound & used}"
