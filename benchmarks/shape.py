"""What the code looks like from afar: `make shape`. Averages hide everything, so this prints the tails.

Counts package code and migrations; tests only for the ratio. tests/architecture asserts what must stay zero.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

PACKAGES = ("gateway", "retrieval", "inference", "embedding", "admin", "migrations")
TOP = 5

# Calls that make a value, a type or a description, whatever the name it is bound to.
_TYPE_CALLS = frozenset({"NewType", "TypeVar", "ParamSpec"})
_VALUE_CALLS = _TYPE_CALLS | {
    "frozenset",
    "tuple",
    "get_logger",
    "getLogger",
    "Decoder",
    "Encoder",
    "MetaData",
    "Table",
}
_MUTABLE = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: Path
    lines: int
    tree: ast.Module


@dataclass(frozen=True, slots=True)
class Function:
    lines: int
    place: str


def modules(root: Path, folders: Iterable[str] = PACKAGES) -> list[Module]:
    """Every module below the folders, in order of name."""
    found = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    return [_module(root, path) for path in found]


def functions(every: Iterable[Module]) -> list[Function]:
    """Longest first."""
    found = [
        Function((node.end_lineno or node.lineno) - node.lineno + 1, f"{module.path}:{node.lineno} {node.name}")
        for module in every
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted(found, key=lambda function: -function.lines)


def import_graph(every: Sequence[Module]) -> dict[str, frozenset[str]]:
    """Imports that run when a module is imported: not those inside functions, nor under TYPE_CHECKING."""
    known = {module.name for module in every}
    return {module.name: frozenset(_imports(module, known)) - {module.name} for module in every}


def cycles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module, largest first (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            start = stack.index(name)
            components.append(stack[start:])
            del stack[start:]

    for name in graph:
        if name not in order:
            visit(name)
    return sorted((sorted(each) for each in components if len(each) > 1), key=len, reverse=True)


def global_statements(every: Iterable[Module]) -> list[str]:
    return [
        f"{module.path}:{node.lineno} global {', '.join(node.names)}"
        for module in every
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global)
    ]


def live_objects(every: Iterable[Module]) -> list[str]:
    """Module-level names that hold something alive: an instance, or a collection that is there to be filled.

    A filled collection in capitals is a table to read, a call bound to a name in capitals makes a constant; an empty
    collection, or `app = FastAPI()`, is state.
    """
    return [
        f"{module.path}:{node.lineno} {name}"
        for module in every
        for node in module.tree.body
        for name, value in _assigned(node)
        if _is_live(name, value)
    ]


def environment_reads(every: Iterable[Module]) -> list[str]:
    return [
        f"{module.path}:{node.lineno}"
        for module in every
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "getenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    ]


def main() -> None:
    root = Path(__file__).parent.parent
    code, tests = modules(root), modules(root, ["tests"])
    by_length = sorted(code, key=lambda module: -module.lines)
    ring = cycles(import_graph(code))
    code_lines, test_lines = (sum(module.lines for module in part) for part in (code, tests))
    _print_list("longest files", (f"{module.lines:5} {module.path}" for module in by_length[:TOP]))
    _print_list("longest functions", (f"{function.lines:5} {function.place}" for function in functions(code)[:TOP]))
    _print_list("import cycles", (" → ".join([*each, each[0]]) for each in ring))
    _print_list("global statements", global_statements(code))
    _print_list("live objects at module level", live_objects(code))
    _print_list("environment reads", environment_reads(code))
    print(
        f"\n{len(code)} files, {code_lines:,} lines of code, {test_lines:,} of tests: {test_lines / max(1, code_lines):.2f} : 1"
    )


def _module(root: Path, path: Path) -> Module:
    relative = path.relative_to(root)
    parts = relative.with_suffix("").parts
    source = path.read_text(encoding="utf-8")
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, relative, source.count("\n"), ast.parse(source))


def _imports(module: Module, known: set[str]) -> Iterator[str]:
    for node in _run_on_import(module.tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in submodules if name in known)
            if node.module in known and not all(name in known for name in submodules):
                yield node.module


def _run_on_import(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from _run_on_import(chain(node.body, node.orelse))
        elif isinstance(node, ast.Try):
            handlers = chain.from_iterable(handler.body for handler in node.handlers)
            yield from _run_on_import(chain(node.body, handlers, node.orelse, node.finalbody))


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        yield node.target.id, node.value


def _is_live(name: str, value: ast.expr) -> bool:
    if name.startswith("__"):
        return False
    constant = name.isupper()
    if isinstance(value, _MUTABLE):
        return not constant or _is_empty(value)
    if isinstance(value, ast.Call):
        called = ast.unparse(value.func).rpartition(".")[2]
        if called in {"dict", "list", "set", "defaultdict", "deque"}:
            return not constant or not value.args
        return not constant and called not in _VALUE_CALLS
    return False


def _is_empty(value: ast.expr) -> bool:
    return not next((child for child in ast.iter_child_nodes(value) if not isinstance(child, ast.expr_context)), None)


def _print_list(title: str, lines: Iterable[str]) -> None:
    every = list(lines)
    print(f"{title}:" if every else f"{title}: none")
    for each in every:
        print(f"  {each}")


if __name__ == "__main__":
    main()
