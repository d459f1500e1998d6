"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

LIB = Path(__file__).resolve().parents[2] / "lib/vagrantp"
# Arrows point one way: a module may import only what stands below it.
LAYERS = [
    {"documents", "errors", "live"},
    {"schema"},
    {"config", "disk_images", "report"},
    {"run"},
    {"instance"},
    {"commands", "metrics", "network", "template"},
    {"fabricyaml", "guest", "images", "isolation", "quota"},
    {"accel", "cloud_images", "oci_images"},
    {"boxes", "lan", "links", "mount", "ports", "provision", "reach", "trust"},
    {"hostcheck", "providers"},
    {"lifecycle"},
    {"doctor", "status", "uninstall", "verify"},
    {"tasks"},
    {"cli", "make"},
]
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "vagrantp":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vagrantp."):
            found.add(str(node.module).split(".")[1])
    return found


def test_arrows_point_one_way() -> None:
    for path in LIB.rglob("*.py"):
        module = path.relative_to(LIB).parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        for imported in imports(path) - {module}:
            assert LEVEL[imported] < LEVEL[module], f"{module} must not import {imported}"


def modules(path: Path) -> set[str]:
    """Return the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "vagrantp_guard" else {str(node.module)}
    return found


def test_the_two_sides_of_the_root_boundary_share_the_contract_alone() -> None:
    for path in LIB.rglob("*.py"):
        of_guard = {name for name in modules(path) if name.startswith("vagrantp_guard")}
        assert of_guard <= {"vagrantp_guard.contract"}, path
    for path in LIB.with_name("vagrantp_guard").glob("*.py"):
        for name in modules(path):
            package, _, _ = name.partition(".")
            assert package in {"vagrantp_guard", *sys.stdlib_module_names}, f"{path}: {name}"
        standing_alone = {"contract.py", "forward.py", "fusermount3.py"}
        if path.name in standing_alone:
            assert not any(name.startswith("vagrantp") for name in modules(path)), path


def test_no_module_of_guard_is_long() -> None:
    for path in LIB.with_name("vagrantp_guard").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


def test_only_run_starts_processes_and_handles_signals() -> None:
    for path in [*LIB.rglob("*.py"), LIB.parents[1] / "fabfile.py"]:
        if path.name == "run.py" or path.parent.name == "programs":  # they run by themselves
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", [])]
            names += (
                [getattr(node, "module", None) or ""] if isinstance(node, ast.ImportFrom) else []
            )
            assert not {"subprocess", "signal", "fcntl"} & set(names), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("os", "system"), ("os", "execvp")}, path
                assert (node.value.id, node.attr) != ("sys", "exit"), path
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), path
