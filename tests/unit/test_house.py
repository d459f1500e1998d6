"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
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
