"""Models as JSON, with the API's own names and order, and their description for pydantic, which FastAPI uses."""

from __future__ import annotations

import enum
import json
from datetime import UTC, date, datetime
from math import isfinite
from typing import Any
from uuid import UUID

import attrs

__all__ = ["JsonModel"]

_PLAIN_TYPES = {float, type(None), bool, int, str}  # tried first, since most values are of these types


class JsonModel:
    """A model that becomes JSON."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, with the API's names and in its order.

        Times are ISO 8601 texts, ids and enums are texts, unknown enum values included. JSON has no infinity and no NaN:
        they are null, as pydantic writes them.
        """
        return {field.name: _plain(getattr(self, field.name)) for field in attrs.fields(type(self))}  # type: ignore[arg-type]

    def to_json(self) -> str:
        """Return the fields as JSON, as `to_dict` does."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, handler: Any) -> Any:
        """Describe the model to pydantic: FastAPI accepts it as a response type, and lists its fields in OpenAPI."""
        from pydantic_core import core_schema as schemas  # noqa: PLC0415 - pydantic, which calls this, imports it

        attributes = attrs.fields(cls)  # type: ignore[arg-type]
        fields = {
            each.name: schemas.typed_dict_field(
                handler.generate_schema(each.type), required=each.default is attrs.NOTHING
            )
            for each in attributes
        }
        row = schemas.typed_dict_schema(fields, cls=cls, ref=f"{cls.__module__}.{cls.__name__}")
        of_row = schemas.no_info_after_validator_function(
            lambda row: cls(**{name: _aware(value) for name, value in row.items()}), row
        )
        # The serializer of the row is wrapped, not replaced, since it handles the caller's `include` and `exclude`.
        as_row = schemas.wrap_serializer_function_ser_schema(
            lambda model, serialize: serialize({each.name: getattr(model, each.name) for each in attributes}),
            schema=row,
        )
        either = schemas.union_schema([schemas.is_instance_schema(cls), of_row])
        return schemas.json_or_python_schema(of_row, either, serialization=as_row)


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return None if kind is float and not isfinite(value) else value
    if isinstance(value, datetime):
        text = value.isoformat()
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text
    if isinstance(value, UUID | date):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, JsonModel):
        return value.to_dict()
    return [_plain(each) for each in value] if isinstance(value, list) else value
