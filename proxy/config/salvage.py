"""What can be judged of a configuration that has mistakes: so that all show at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from proxy.addresses import parse_listen
from proxy.config.settings import Access, Admin, Listener, Route, Settings
from proxy.config.translate import KINDS

if TYPE_CHECKING:
    from proxy.model import Model


def salvage(data: dict[str, Any]) -> Settings:
    """Build settings of the fields that are right; `known` tells which of a model's are there."""
    routes = _mapping(data.get("routes")).items()
    kinds = {name: (_kind(raw), raw) for name, raw in _mapping(data.get("credentials")).items()}
    return Settings.model_construct(
        routes={name: _partial(Route, raw) for name, raw in routes},
        credentials={name: _partial(kind, raw) for name, (kind, raw) in kinds.items() if kind},
        listeners={
            at: _partial(Listener, raw)
            for at, raw in _mapping(data.get("listeners")).items()
            if _is_address(at)
        },
        admin=_partial(Admin, data.get("admin")),
        access=_partial(Access, data.get("access")),
    )


def known(model: Model, *fields: str) -> bool:
    """Tell whether these fields of a model were right (or left to their defaults)."""
    return all(field in model.__dict__ for field in fields)


def _partial(model: type[Model], raw: Any) -> Any:
    given = _mapping(raw)
    built = model.model_construct()
    for name, field in model.model_fields.items():
        if name not in given:
            continue
        written: Any = field.annotation
        if field.metadata:
            written = Annotated[field.annotation, *field.metadata]
        adapter: TypeAdapter[Any] = TypeAdapter(written)
        try:
            built.__dict__[name] = adapter.validate_python(given[name])
        except ValidationError:
            built.__dict__.pop(name, None)
    return built


def _is_address(text: str) -> bool:
    try:
        parse_listen(text)
    except PydanticCustomError:
        return False
    return True


def _kind(raw: Any) -> type[Any] | None:
    kind = _mapping(raw).get("kind")
    return KINDS.get(kind) if isinstance(kind, str) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
