"""The configuration's JSON Schema, for editors: draft 2020-12."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from proxy.addresses import Listen, Origin
from proxy.config.settings import Settings
from proxy.model import Model

if TYPE_CHECKING:
    from pydantic_core import core_schema


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, with defaults as people write them, and names held to their pattern."""

    def encode_default(self, dft: Any) -> Any:
        return _written(dft)

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        return {**made, "additionalProperties": False} if "patternProperties" in made else made


def _written(value: Any) -> Any:
    if isinstance(value, Origin | Listen):
        return str(value)
    if isinstance(value, Model):
        return {name: _written(item) for name, item in value}
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    return value


def schema() -> dict[str, Any]:
    """Describe a configuration as it is written, not as it is kept."""
    made = Settings.model_json_schema(schema_generator=_Generator)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **made,
        "title": "Configuration of ekeko",
        "description": "Routes, and the credentials that they attach.",
    }
