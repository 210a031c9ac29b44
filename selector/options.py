"""Groups of options: a command takes frozen dataclasses, and typer sees their fields as options.

A field's attribute docstring is the help text (its first paragraph), its default the option's; a
typer annotation is needed only for more, as bounds or a second spelling. A default given in the
command's signature replaces the group's own. So a new option is one field, wherever its group is
taken. A field that no person sets says so: `field(default=…, metadata={"option": False})`.

Every number is finite and no whole number exceeds `LARGEST_NUMBER` unless its annotation says more.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import Field, fields, is_dataclass, replace
from functools import cache, wraps
from itertools import pairwise
from math import isfinite
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from rich.markup import escape
from typer import BadParameter, Option
from typer.models import ParameterInfo

LARGEST_NUMBER = 10_000_000
LARGEST_FLOAT = 1e9


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer reads it: each parameter that is a dataclass, by its fields."""
    parameters: dict[str, inspect.Parameter] = {}
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        found = [parameter]
        if is_dataclass(parameter.annotation):
            kind: Any = parameter.annotation
            chosen = kind() if parameter.default is parameter.empty else parameter.default
            groups[parameter.name] = chosen
            found = list(_parameters(chosen))
        for each in found:
            if each.name in parameters:
                raise TypeError(f"{command.__qualname__} takes the option '{each.name}' twice.")
            _bound(each.annotation)
            parameters[each.name] = each.replace(kind=inspect.Parameter.KEYWORD_ONLY)

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            values = {
                each.name: _frozen(given.pop(each.name), group, each) for each in _options(group)
            }
            given[name] = replace(group, **values)
        command(**given)

    run.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    vars(run)["__signature__"] = inspect.Signature(list(parameters.values()))
    return run


def attribute_docs(group: type) -> Mapping[str, str]:
    """The docstring below each field of a class, its own and inherited ones."""
    docs: dict[str, str] = {}
    for kind in reversed(group.__mro__[:-1]):
        for node, below in pairwise(_classes(kind.__module__)[kind.__name__].body):
            if isinstance(node, ast.AnnAssign) and isinstance(below, ast.Expr):
                docs[ast.unparse(node.target)] = inspect.cleandoc(ast.literal_eval(below.value))
    return docs


@cache
def _classes(module: str) -> Mapping[str, ast.ClassDef]:
    """The classes at the top of a module; read once, `--help` needs many of them."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _parameters(group: Any) -> Iterator[inspect.Parameter]:
    hints, docs = get_type_hints(type(group), include_extras=True), attribute_docs(type(group))
    for each in _options(group):
        yield _parameter(each, getattr(group, each.name), hints[each.name], group, docs)


def _options(group: Any) -> list[Field]:
    return [each for each in fields(group) if each.metadata.get("option", True)]


def _parameter(
    field: Field, default: Any, hint: Any, group: Any, docs: Mapping[str, str]
) -> inspect.Parameter:
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    info = copy(next((extra for extra in extras if isinstance(extra, ParameterInfo)), Option()))
    info.help = escape(" ".join(docs[field.name].split("\n\n")[0].split()))
    info.rich_help_panel = info.rich_help_panel or getattr(group, "panel", None)
    if kind is bool and not info.param_decls and info.default is ...:
        info.default = f"--{field.name.replace('_', '-')}"  # and no --no-… beside it
    if get_origin(kind) is tuple:  # may be given several times
        kind, default = list[get_args(kind)[0]] | None, list(default) or None  # type: ignore[misc]
    elif info.parser:
        kind, default = str | None, default or None
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


def _bound(annotation: Any) -> None:
    """Give a number's option the bounds that it does not name itself."""
    kind, *extras = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    for info in (extra for extra in extras if isinstance(extra, ParameterInfo)):
        if info.parser is None and float in (kind, *get_args(kind)):
            info.max = LARGEST_FLOAT if info.max is None else info.max
            info.callback = _finite
        elif info.parser is None and int in (kind, *get_args(kind)):
            info.max = LARGEST_NUMBER if info.max is None else info.max


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        raise BadParameter(f"{value} is not a finite number.")
    return value


def _frozen(value: Any, group: Any, field: Field) -> Any:
    """A list as a tuple, and what typer gives as None for nothing as the group has it."""
    if value is None:
        return getattr(group, field.name)
    return tuple(value) if isinstance(value, list) else value
