"""Messages as JSON: object -> [parse] -> message, message -> [dump] -> object, and what such objects look like.

Plainer than protobuf's own mapping: names as in protos/, 64-bit integers as numbers, a ``Value`` as a number, a text or
null, an enum by its short name in lower case. null leaves a field unset; a number that is not finite becomes null.
"""

import base64
import difflib
import math
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from stream_app.errors import ServingError
from stream_app.wire import stream_app_pb2 as pb

_VALUE = pb.Value.DESCRIPTOR.full_name
_EXACT = 2**53
"""Beyond it doubles are no longer every integer."""
_WHOLE = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31),
    FieldDescriptor.TYPE_UINT32: (0, 2**32),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63),
    FieldDescriptor.TYPE_UINT64: (0, 2**64),
}
_REAL = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
Schema = dict[str, Any]


def parse(descriptor: Descriptor, data: object) -> Any:
    """A message of this kind.

    Raises:
        ServingError: INVALID_ARGUMENT, naming the place.
    """
    return _message(descriptor, data, "")


def _message(descriptor: Descriptor, data: object, where: str) -> Any:
    if descriptor.full_name == _VALUE:
        return _value(data, where)
    message = GetMessageClass(descriptor)()
    if not isinstance(data, dict):
        raise _wrong(where or "the body", data, "an object")
    for name, value in data.items():
        field = descriptor.fields_by_name.get(name)
        if field is None:
            near = difflib.get_close_matches(name, [f.name for f in descriptor.fields], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ServingError("INVALID_ARGUMENT", f"{where or 'the body'}: there is no field {name!r}{hint}")
        if value is not None:
            _set(message, field, value, f"{where}.{name}" if where else name)
    return message


def _set(message: Any, field: FieldDescriptor, value: object, where: str) -> None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        _set_map(getattr(message, field.name), kind, value, where)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        getattr(message, field.name).extend(_one(field, v, f"{where}[{i}]") for i, v in enumerate(value))
    elif kind is not None:
        getattr(message, field.name).CopyFrom(_message(kind, value, where))
    else:
        setattr(message, field.name, _one(field, value, where))


def _set_map(target: Any, entry: Descriptor, value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object")
    key, of = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for name, item in value.items():
        place = f"{where}.{name}"
        at = name if key.type == FieldDescriptor.TYPE_STRING else _one(key, _number_of(name), place)
        if of.message_type is None:
            target[at] = _one(of, item, place)
        else:
            target[at].CopyFrom(_message(of.message_type, item, place))


def _number_of(name: str) -> object:
    return int(name) if name.lstrip("-").isascii() and name.lstrip("-").isdigit() and len(name) < 21 else name


def _one(field: FieldDescriptor, value: object, where: str) -> Any:
    """A single element, checked; protobuf's own errors do not say where."""
    if field.message_type is not None:
        return _message(field.message_type, value, where)
    if field.enum_type is not None:
        return _enum(field.enum_type, value, where)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _of(bool, value, where, "true or false")
    if field.type == FieldDescriptor.TYPE_STRING:
        return _of(str, value, where, "a text")
    if field.type == FieldDescriptor.TYPE_BYTES:
        try:
            return base64.b64decode(_of(str, value, where, "base64"), validate=True)
        except ValueError as error:
            raise _wrong(where, value, "base64") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(where, value, "a number")
    if field.type in _REAL:
        return _double(value, where)
    low, high = _WHOLE[field.type]
    if isinstance(value, float) or not low <= value < high:
        raise _wrong(where, value, f"a whole number from {low} to {high - 1}")
    return value


def _of(kind: type, value: object, where: str, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise _wrong(where, value, wanted)
    return value


def _double(value: float, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise _wrong(where, value, "a number that a double can hold") from error


def _enum(enum: EnumDescriptor, value: object, where: str) -> int:
    names = {_short(enum, v.name): v.number for v in enum.values}
    if not isinstance(value, str) or value not in names:
        raise _wrong(where, value, " or ".join(names))
    return names[value]


def _short(enum: EnumDescriptor, name: str) -> str:
    """EXPLAIN_LOG_ODDS of Explain is log_odds."""
    return name.removeprefix(f"{enum.name.upper()}_").lower()


def _value(data: object, where: str) -> pb.Value:
    match data:
        case None:
            return pb.Value()
        case str():
            return pb.Value(text=data)
        case int() if not isinstance(data, bool) and abs(data) > _EXACT:
            return pb.Value(text=_digits(data, where))
        case int() | float() if not isinstance(data, bool):
            return pb.Value(number=data)
    raise _wrong(where, data, "a number, a text or null")


def _digits(data: int, where: str) -> str:
    try:
        return str(data)
    except ValueError as error:  # Python writes no number of more than 4,300 digits
        raise ServingError("INVALID_ARGUMENT", f"{where} is an endless number, wanted a shorter one") from error


def _wrong(where: str, value: object, wanted: str) -> ServingError:
    try:
        text = repr(value)
    except ValueError:
        text = "an endless number"
    shown = text if len(text) <= 40 else f"{text[:37]}..."
    return ServingError("INVALID_ARGUMENT", f"{where} is {shown}, wanted {wanted}")


def dump(message: Message) -> Any:
    """All fields, but optional ones and messages that are not set."""
    if message.DESCRIPTOR.full_name == _VALUE:
        kind = message.WhichOneof("kind")
        return None if kind is None else _plain(getattr(message, kind))
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not field.is_repeated and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of = field.message_type.fields_by_name["value"]
            found[field.name] = {str(k): _dumped(of, v) for k, v in value.items()}
        elif field.is_repeated:
            found[field.name] = [_dumped(field, v) for v in value]
        else:
            found[field.name] = _dumped(field, value)
    return found


def _dumped(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return dump(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return _short(field.enum_type, known.name) if known else value
    return base64.b64encode(value).decode() if field.type == FieldDescriptor.TYPE_BYTES else _plain(value)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def schema(descriptor: Descriptor, found: dict[str, Schema]) -> Schema:
    """A reference to what JSON of this message looks like (OpenAPI 3.1); ``found`` gets it, and those within."""
    if descriptor.full_name == _VALUE:
        return {"type": ["number", "string", "null"]}
    name = descriptor.full_name.rpartition(".")[2]
    if name not in found:
        found[name] = {}  # a message may contain its own kind
        properties = {field.name: _field_schema(field, found) for field in descriptor.fields}
        found[name] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"$ref": f"#/components/schemas/{name}"}


def _field_schema(field: FieldDescriptor, found: dict[str, Schema]) -> Schema:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _element_schema(kind.fields_by_name["value"], found)}
    element = _element_schema(field, found)
    return {"type": "array", "items": element} if field.is_repeated else element


def _element_schema(field: FieldDescriptor, found: dict[str, Schema]) -> Schema:
    if field.message_type is not None:
        return schema(field.message_type, found)
    if field.enum_type is not None:
        return {"type": "string", "enum": [_short(field.enum_type, v.name) for v in field.enum_type.values]}
    if field.type in _WHOLE:
        low, high = _WHOLE[field.type]
        return {"type": "integer", "minimum": low, "maximum": high - 1}
    if field.type in _REAL:
        return {"type": ["number", "null"]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "boolean" if field.type == FieldDescriptor.TYPE_BOOL else "string"}
