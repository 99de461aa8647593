from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Name(_message.Message):
    __slots__ = ("text", "number")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    text: str
    number: int
    def __init__(self, text: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("id", "time", "features", "value", "label_time", "weight")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LABEL_TIME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    id: str
    time: float
    features: Features
    value: float
    label_time: float
    weight: float
    def __init__(self, id: _Optional[str] = ..., time: _Optional[float] = ..., features: _Optional[_Union[Features, _Mapping]] = ..., value: _Optional[float] = ..., label_time: _Optional[float] = ..., weight: _Optional[float] = ..., **kwargs) -> None: ...

class Features(_message.Message):
    __slots__ = ("numeric", "categorical")
    class NumericEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class CategoricalEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Name
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Name, _Mapping]] = ...) -> None: ...
    NUMERIC_FIELD_NUMBER: _ClassVar[int]
    CATEGORICAL_FIELD_NUMBER: _ClassVar[int]
    numeric: _containers.ScalarMap[str, float]
    categorical: _containers.MessageMap[str, Name]
    def __init__(self, numeric: _Optional[_Mapping[str, float]] = ..., categorical: _Optional[_Mapping[str, Name]] = ...) -> None: ...

class Examples(_message.Message):
    __slots__ = ("rows", "ids", "time", "numeric", "categorical", "value", "label_time", "weight")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    NUMERIC_FIELD_NUMBER: _ClassVar[int]
    CATEGORICAL_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LABEL_TIME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    rows: int
    ids: Texts
    time: bytes
    numeric: _containers.RepeatedCompositeFieldContainer[Numeric]
    categorical: _containers.RepeatedCompositeFieldContainer[Categorical]
    value: bytes
    label_time: bytes
    weight: bytes
    def __init__(self, rows: _Optional[int] = ..., ids: _Optional[_Union[Texts, _Mapping]] = ..., time: _Optional[bytes] = ..., numeric: _Optional[_Iterable[_Union[Numeric, _Mapping]]] = ..., categorical: _Optional[_Iterable[_Union[Categorical, _Mapping]]] = ..., value: _Optional[bytes] = ..., label_time: _Optional[bytes] = ..., weight: _Optional[bytes] = ..., **kwargs) -> None: ...

class Numeric(_message.Message):
    __slots__ = ("name", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: bytes
    def __init__(self, name: _Optional[str] = ..., values: _Optional[bytes] = ...) -> None: ...

class Categorical(_message.Message):
    __slots__ = ("name", "texts", "numbers", "codes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    name: str
    texts: Texts
    numbers: bytes
    codes: bytes
    def __init__(self, name: _Optional[str] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., numbers: _Optional[bytes] = ..., codes: _Optional[bytes] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("text", "ends")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    ends: bytes
    def __init__(self, text: _Optional[bytes] = ..., ends: _Optional[bytes] = ...) -> None: ...
