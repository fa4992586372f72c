"""The house keeps its rooms: who may import whom, read from the source."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.processes import ROOT, python

OURS = ("cache", "pipeline")


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path) -> set[str]:
    """Modules that a file imports, inside functions too; not those for type checkers alone."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                module = child.module or ""
                for alias in child.names:
                    full = f"{module}.{alias.name}"
                    names.add(full if is_module(full) else module)
            elif not is_for_type_checkers(child):
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


def is_module(name: str) -> bool:
    base = ROOT / Path(*name.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def is_for_type_checkers(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def level(module: str) -> int:
    """cli 4 > demo and reproduction 3 > stages 2 > parts 1 > errors and settings 0."""
    if module.startswith(("pipeline.cli", "pipeline.start", "pipeline.__main__")):
        return 4
    if module.startswith(("pipeline.demo", "pipeline.reproduction")):
        return 3
    if module.startswith("pipeline.stages."):
        return 2
    return 0 if module == "pipeline.errors" else 1


def test_cache_knows_nothing_of_pipeline_torch_or_click() -> None:
    for module, path in modules("cache"):
        for name in imported(path):
            assert name.split(".")[0] not in {"pipeline", "torch", "torchvision", "click"}, (
                f"{module} imports {name}"
            )


def test_imports_point_down() -> None:
    for module, path in modules("pipeline"):
        if module == "pipeline":  # it lists the public names of every level
            continue
        for name in imported(path):
            if name.startswith("pipeline") and name not in {"pipeline", "pipeline.stages"}:
                assert level(name) <= level(module), f"{module} imports {name}"
            assert name != "pipeline", f"{module} imports through the public names"


def test_stages_do_not_import_each_other() -> None:
    for module, path in modules("pipeline"):
        if module.startswith("pipeline.stages."):
            others = {n for n in imported(path) if n.startswith("pipeline.stages.")} - {module}
            assert not others, f"{module} imports {others}"


@pytest.mark.parametrize("package", OURS)
def test_there_is_no_circle_between_modules(package: str) -> None:
    graph = {
        module: {n for n in imported(path) if n != module} for module, path in modules(package)
    }
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            for name in sorted(graph.get(module, ())):
                walk(name, (*way, module))
            done.add(module)

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize("statement", ["import pipeline", "import pipeline.cli", "import cache"])
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    heavy = ("torch", "numpy", "zarr", "h5py", "matplotlib", "sklearn")
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    assert python("-c", code).strip() == "[]"


@pytest.mark.parametrize("package", OURS)
def test_public_names_are_those_that_type_checkers_find(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if is_for_type_checkers(node))
    assert isinstance(block, ast.If)
    found = []
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.name == alias.asname  # which says that it is meant to be public
            found.append(alias.name)
            home = importlib.import_module(node.module or "")
            name = getattr(importlib.import_module(package), alias.name)
            assert name is getattr(home, alias.name)
    assert len(found) == len(set(found))
    assert found == importlib.import_module(package).__all__


def docstrings(path: Path) -> Iterator[str]:
    """Of a module, its classes and functions, and those that stand under fields and constants."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():  # a lambda's is no list
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.value.value


@pytest.mark.parametrize("package", OURS)
def test_docstrings_put_names_in_single_backticks(package: str) -> None:
    read = 0
    for module, path in modules(package):
        for text in docstrings(path):
            read += 1
            assert not re.search(r":\w+:`|``", text), f"{module}: {text}"
    assert read > 100


def test_what_the_store_s_code_ignores_has_its_reason() -> None:
    for module, path in modules("cache"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "noqa" in line:
                assert re.search(r"  # noqa: [A-Z]+[0-9]+  # \S", line), f"{module}: {line}"


def test_fields_of_the_store_s_dataclasses_say_what_they_are() -> None:
    read = 0
    for module, path in modules("cache"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "dataclass" in map(called, node.decorator_list):
                for field, below in pairwise([*node.body, ast.Pass()]):
                    if isinstance(field, ast.AnnAssign):
                        read += 1
                        told = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                        assert told, f"{module}: {ast.unparse(field)}"
    assert read > 30


def called(decorator: ast.expr) -> str:
    """The name of a decorator, with or without arguments."""
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return name.id if isinstance(name, ast.Name) else ""


@pytest.mark.parametrize("package", OURS)
def test_public_names_are_all_there(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == dir(module)
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing
