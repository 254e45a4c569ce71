"""Read tool calls that a model wrote as Python: `[turn_on(name="lamp")]`, `print(default_api.get_time())`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rkllm_mqtt.content.offer import Offer
from rkllm_mqtt.content.repair import MAX_REPAIRED_CHARS

if TYPE_CHECKING:
    import ast

_WORDS = {"true": True, "false": False, "null": None, "none": None}


def python_calls(text: str, offer: Offer) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the offered tools that a text calls, and their arguments; nothing is ever evaluated.

    Only literals are arguments. One argument without a name belongs to the only parameter it can belong to.
    """
    if len(text) > MAX_REPAIRED_CHARS or "(" not in text:
        return
    import ast  # few answers need it

    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return
    for statement in module.body:
        value = getattr(statement, "value", None)
        if value is not None:
            yield from _calls_in(value, offer)


def _calls_in(node: "ast.AST", offer: Offer) -> Iterator[tuple[str, dict[str, Any]]]:
    import ast

    if isinstance(node, (ast.List, ast.Tuple)):
        for item in node.elts:
            yield from _calls_in(item, offer)
    elif isinstance(node, ast.Call):
        written = _name_of(node.func)
        name = offer.find(written)
        if name is None:
            for inner in node.args if written == "print" else ():
                yield from _calls_in(inner, offer)
            return
        try:
            arguments = {word.arg: _literal(word.value) for word in node.keywords if word.arg is not None}
            arguments.update(_positional(node.args, name, offer))
        except (ValueError, RecursionError):
            return
        yield name, arguments


def _name_of(node: "ast.AST") -> str:
    """Return the dotted name of what is called; Llama calls its built-in tools as `NAME.call`."""
    import ast

    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts)).removesuffix(".call")


def _positional(nodes: "list[ast.expr]", name: str, offer: Offer) -> dict[str, Any]:
    if not nodes:
        return {}
    properties, required = list(offer.properties(name)), offer.required(name)
    only = properties if len(properties) == 1 else required
    if len(nodes) > 1 or len(only) != 1:
        raise ValueError("it is not clear which parameters are meant")
    return {only[0]: _literal(nodes[0])}


def _literal(node: "ast.AST") -> Any:
    import ast

    if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
        return _WORDS[node.id.lower()]
    if isinstance(node, ast.Dict):
        return {
            str(_literal(key)): _literal(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        }
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_literal(item) for item in node.elts]
    value = ast.literal_eval(node)
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    raise ValueError("this is no JSON value")
