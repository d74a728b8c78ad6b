"""`python:evaluate`: one expression, under the same attribute rules as every other command.

The expression is parsed, every attribute access is rewritten to go through `AllowList.step`, and it runs with a handful
of builtins, the caller's names and the allowed modules that it mentions. Off unless `options.evaluate` is true,
because an expression can still compute anything (and for ever) with the rights of the worker.
"""

from __future__ import annotations

import ast
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.allow import AllowList

_STEP: Final = "__manybridge_step__"
SAFE_BUILTINS: Final[dict[str, Any]] = {
    function.__name__: function
    for function in (
        *(abs, all, any, bool, dict, divmod, enumerate, filter, float, frozenset, int, isinstance, len, list, map),
        *(max, min, pow, range, reversed, round, set, slice, sorted, str, sum, tuple, zip),
    )
}


class _CheckedAttributes(ast.NodeTransformer):
    """`a.b` becomes `step(a, "b")`; names with a leading double underscore are refused."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        call = ast.Call(func=ast.Name(_STEP, ast.Load()), args=[node.value, ast.Constant(node.attr)], keywords=[])
        return ast.copy_location(call, node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id.startswith("__"):
            raise BridgeError("permission_denied", f"{node.id!r} can't be used in an expression")
        return node


def evaluate(expression: str, names: dict[str, Any], allow: AllowList) -> Any:
    """The value of `expression`, in which `names` and the allowed modules are bound.

    Raises:
        BridgeError: `invalid_argument` for a syntax error or an unknown name, `permission_denied` for what the allow
            list refuses; whatever the expression itself raises passes through.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise BridgeError(
            "invalid_argument", f"expression is not a Python expression: {exc}", details={"argument": "expression"}
        ) from exc
    wanted = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    checked = ast.fix_missing_locations(_CheckedAttributes().visit(tree))
    bound = {name: allow.import_allowed(name) for name in wanted if _is_module(name, names, allow)}
    scope: dict[str, Any] = {"__builtins__": SAFE_BUILTINS, _STEP: allow.step, **bound, **names}
    try:
        return eval(compile(checked, "<expression>", "eval"), scope)  # noqa: S307  # the command's purpose; off by default
    except NameError as exc:
        raise BridgeError(
            "invalid_argument",
            f"{exc}; an expression knows its names, the allowed modules and {len(SAFE_BUILTINS)} builtins",
            details={"argument": "expression", "name": exc.name},
        ) from exc


def _is_module(name: str, names: dict[str, Any], allow: AllowList) -> bool:
    return name not in names and name not in SAFE_BUILTINS and allow.allows(name)
