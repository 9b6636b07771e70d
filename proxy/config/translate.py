"""pydantic's errors in plain sentences: what is wrong, what is expected, never the value."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from proxy.config.settings import Settings
from proxy.credentials import AnySettings
from proxy.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

    from proxy.config.document import Document
    from proxy.config.problem import KeyPath, Problem

KINDS: dict[str, type[Any]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model
    for model in get_args(get_args(AnySettings)[0])
}
_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}

_BOUNDS = {
    "greater_than": "is too small: expected more than {gt}",
    "greater_than_equal": "is too small: expected {ge} or more",
    "less_than_equal": "is too large: expected {le} or less",
}


def translate(errors: Iterable[ErrorDetails], document: Document) -> list[Problem]:
    """Turn each of pydantic's errors into a problem at its place."""
    return [_problem(error, document) for error in errors if not _is_echo(error, document.data)]


def _is_echo(error: ErrorDetails, data: dict[str, Any]) -> bool:
    """Tell whether a list counts as too short only because its items are wrong."""
    return error["type"] == "too_short" and bool(_value(data, _seen(error["loc"])[0]))


def _problem(error: ErrorDetails, document: Document) -> Problem:
    kind, places = error["type"], document.places
    if kind == "name":  # its location ends in a mark that it is the key which is wrong
        return places.at_key(_seen(error["loc"][:-1])[0], error["msg"])
    path, model = _seen(error["loc"])
    if kind == "extra_forbidden":
        return places.at_key(path, unknown(str(path[-1]), model.model_fields, "a known key"))
    if kind == "missing":
        expected = model.model_fields[str(path[-1])].description
        return places.at_key(path, f"is missing: expected {expected}")
    if kind == "union_tag_not_found":
        return places.at_key((*path, "kind"), f"is missing: expected {_listed(KINDS)}")
    if kind == "union_tag_invalid":
        return places.at_value((*path, "kind"), f"is unknown: expected {_listed(KINDS)}")
    return places.at_value(path, _sentence(error, _value(document.data, path)))


def _sentence(error: ErrorDetails, value: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _TYPES:
        quotes = isinstance(value, bool | int | float | date) and kind == "string_type"
        hint = ", so write it in quotes" if quotes else ""
        return f"is {_described(value)}: expected {_TYPES[kind]}{hint}"
    if kind == "literal_error":
        return f"is {_described(value)}, not one of the choices: expected {context['expected']}"
    if kind in _BOUNDS:
        return _BOUNDS[kind].format_map(context)
    if kind == "too_short":
        return "is empty: expected at least one"
    # Only pydantic's own errors come with a link to its manual.
    return "is not a valid value" if "url" in error else error["msg"]


def _described(value: Any) -> str:
    """Say what YAML made of a value, without showing it."""
    kinds: list[tuple[Any, str]] = [
        (type(None), "empty"),
        (bool, "true or false (as YAML reads yes, no, on and off)"),
        (int | float, "a number"),
        (str, "text"),
        (date, "a date"),
        (Mapping, "a mapping"),
        (Sequence, "a list"),
    ]
    return next(words for kind, words in kinds if isinstance(value, kind))


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """Say that a name is unknown: what it may have been meant for, or what there is."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"is not {what}; did you mean '{close[0]}'?"
    return f"is not {what}: expected {_listed(names)}"


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _value(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _seen(loc: tuple[int | str, ...]) -> tuple[KeyPath, type[Model]]:
    """Give the key path that a person sees, and the model of the innermost mapping on it."""
    path: list[int | str] = []
    here: Any = Settings
    model: type[Model] = Settings
    for part in loc:
        if here == AnySettings:  # pydantic puts the kind here
            here = KINDS[str(part)]
            continue
        if isinstance(here, type) and issubclass(here, Model):
            model = here
        path.append(part)
        here = _inside(here, part)
    return tuple(path), model


def _inside(annotation: Any, part: int | str) -> Any:
    """Give the type of what stands under a key or index."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        field = annotation.model_fields.get(str(part))
        return _plain(field.annotation) if field else None
    arguments = get_args(annotation)
    return _plain(arguments[1] if get_origin(annotation) is dict else arguments[0])


def _plain(annotation: Any) -> Any:
    """Take off what only adds to a type: checks, and `| None`."""
    if annotation == AnySettings:
        return annotation
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    some = [member for member in get_args(annotation) if member is not type(None)]
    optional = type(None) in get_args(annotation)
    return _plain(some[0]) if optional and len(some) == 1 else annotation
