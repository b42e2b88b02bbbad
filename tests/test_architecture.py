"""Rules of the code base that no linter knows: who may import whom, who may print."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "sr_upscale"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    ("__init__", "errors", "flags", "formatting", "interrupts"),
    ("device",),
    ("functional",),
    ("storage",),
    ("models",),
    ("images",),
    ("data",),
    ("pretrained",),
    ("metrics",),
    ("inference",),
    ("training",),
    ("video",),
    ("upscaler",),
    ("benchmark",),
    ("pipeline",),
    ("server",),
    ("cli", "__main__"),
)
"""Folders and single files, lowest first: each imports from its own layer and from lower ones alone."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int:
    for level, names in enumerate(LAYERS):
        if module.split(".")[0] in names:
            return level
    pytest.fail(f"{module} stands in no layer of this test; give it its place")


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if (
            id(node) in skipped
            or not isinstance(node, ast.ImportFrom)
            or not (node.module or "").startswith("sr_upscale")
        ):
            continue
        base = (node.module or "").removeprefix("sr_upscale").removeprefix(".")
        for name in node.names:
            as_module = PACKAGE / base.replace(".", "/") / f"{name.name}.py"
            yield f"{base}.{name.name}".strip(".") if as_module.exists() else base or "__init__"


def test_imports_point_downwards() -> None:
    for path in FILES:
        module = module_of(path) or "__init__"
        assert path.stem not in ("utils", "helpers", "common", "misc"), "a file is one idea, and has its name"
        for target in imports(path):
            assert layer_of(target) <= layer_of(module), f"{module} imports {target}, which stands above it"
            assert not (module.startswith("training") and target.startswith("inference")), (module, target)
            assert module.split(".")[0] in ("cli", "__main__") or not target.startswith("cli"), (module, target)


def test_the_core_never_prints_and_never_exits() -> None:
    called = {"print", "sys.exit", "exit", "quit", "os._exit"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if "cli" not in path.parts else ():
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in called, f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("sys.stdout", "sys.stderr", "sys.argv"), f"{path}:{node.lineno}"


def test_public_names_are_lazy_and_complete() -> None:
    import sr_upscale

    assert set(sr_upscale.__all__) <= set(dir(sr_upscale))
    for name in sr_upscale.__all__:
        assert getattr(sr_upscale, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sr_upscale.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_no_test_bounds_the_time_on_the_wall() -> None:
    """A busy machine takes as long as it likes: steps are counted, or CPU time has a generous bound."""
    found = [
        f"{path.name}:{number}"
        for path in (ROOT / "tests").rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\b(monotonic|perf_counter|time)\(\) - \w+ <", line)
    ]
    assert found == []
