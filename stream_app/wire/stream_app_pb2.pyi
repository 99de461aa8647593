from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Explain(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLAIN_UNSPECIFIED: _ClassVar[Explain]
    EXPLAIN_SCORE: _ClassVar[Explain]
    EXPLAIN_LOG_ODDS: _ClassVar[Explain]
EXPLAIN_UNSPECIFIED: Explain
EXPLAIN_SCORE: Explain
EXPLAIN_LOG_ODDS: Explain

class Value(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: float
    text: str
    def __init__(self, number: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("features", "time_s")
    class FeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    features: _containers.MessageMap[str, Value]
    time_s: float
    def __init__(self, features: _Optional[_Mapping[str, Value]] = ..., time_s: _Optional[float] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("rows", "columns", "times_s")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TIMES_S_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    times_s: bytes
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., times_s: _Optional[bytes] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "numbers", "texts", "at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    numbers: bytes
    texts: _containers.RepeatedScalarFieldContainer[str]
    at: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., numbers: _Optional[bytes] = ..., texts: _Optional[_Iterable[str]] = ..., at: _Optional[_Iterable[int]] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("rows", "columns", "explain")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    columns: Columns
    explain: Explain
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., columns: _Optional[_Union[Columns, _Mapping]] = ..., explain: _Optional[_Union[Explain, str]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("predictions", "scores", "model", "version", "version_id", "epoch", "variant", "prior_only", "staleness")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    PRIOR_ONLY_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    scores: Scores
    model: str
    version: int
    version_id: str
    epoch: int
    variant: str
    prior_only: bool
    staleness: Staleness
    def __init__(self, predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., scores: _Optional[_Union[Scores, _Mapping]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., version_id: _Optional[str] = ..., epoch: _Optional[int] = ..., variant: _Optional[str] = ..., prior_only: _Optional[bool] = ..., staleness: _Optional[_Union[Staleness, _Mapping]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("scores", "label", "value", "explanation")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.ScalarMap[str, float]
    label: str
    value: float
    explanation: Explanation
    def __init__(self, scores: _Optional[_Mapping[str, float]] = ..., label: _Optional[str] = ..., value: _Optional[float] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("classes", "values")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedScalarFieldContainer[str]
    values: bytes
    def __init__(self, classes: _Optional[_Iterable[str]] = ..., values: _Optional[bytes] = ...) -> None: ...

class PredictStreamResponse(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: PredictResponse
    error: Error
    def __init__(self, response: _Optional[_Union[PredictResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("status", "message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    message: str
    def __init__(self, status: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("label", "base", "said", "attributions")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    SAID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    label: str
    base: float
    said: float
    attributions: _containers.RepeatedCompositeFieldContainer[Attribution]
    def __init__(self, label: _Optional[str] = ..., base: _Optional[float] = ..., said: _Optional[float] = ..., attributions: _Optional[_Iterable[_Union[Attribution, _Mapping]]] = ...) -> None: ...

class Attribution(_message.Message):
    __slots__ = ("name", "value", "contribution")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Value
    contribution: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ..., contribution: _Optional[float] = ...) -> None: ...

class Staleness(_message.Message):
    __slots__ = ("version_age_s", "log_age_s")
    VERSION_AGE_S_FIELD_NUMBER: _ClassVar[int]
    LOG_AGE_S_FIELD_NUMBER: _ClassVar[int]
    version_age_s: float
    log_age_s: float
    def __init__(self, version_age_s: _Optional[float] = ..., log_age_s: _Optional[float] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("number", "id", "epoch", "parent", "created_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    id: str
    epoch: int
    parent: str
    created_s: float
    def __init__(self, number: _Optional[int] = ..., id: _Optional[str] = ..., epoch: _Optional[int] = ..., parent: _Optional[str] = ..., created_s: _Optional[float] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "task", "label_name", "classes", "features", "version", "variant", "prior_only", "staleness", "offsets", "labels", "metrics", "hyper", "variants", "importance", "members")
    class OffsetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ImportanceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class MembersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LABEL_NAME_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    PRIOR_ONLY_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    HYPER_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    model: str
    task: str
    label_name: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    version: Version
    variant: str
    prior_only: bool
    staleness: Staleness
    offsets: _containers.ScalarMap[int, int]
    labels: int
    metrics: _containers.ScalarMap[str, float]
    hyper: Hyper
    variants: _containers.RepeatedCompositeFieldContainer[Variant]
    importance: _containers.ScalarMap[str, float]
    members: _containers.ScalarMap[str, float]
    def __init__(self, model: _Optional[str] = ..., task: _Optional[str] = ..., label_name: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., version: _Optional[_Union[Version, _Mapping]] = ..., variant: _Optional[str] = ..., prior_only: _Optional[bool] = ..., staleness: _Optional[_Union[Staleness, _Mapping]] = ..., offsets: _Optional[_Mapping[int, int]] = ..., labels: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., hyper: _Optional[_Union[Hyper, _Mapping]] = ..., variants: _Optional[_Iterable[_Union[Variant, _Mapping]]] = ..., importance: _Optional[_Mapping[str, float]] = ..., members: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "kind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class Hyper(_message.Message):
    __slots__ = ("learning_rate", "half_life_events")
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_EVENTS_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    half_life_events: float
    def __init__(self, learning_rate: _Optional[float] = ..., half_life_events: _Optional[float] = ...) -> None: ...

class Variant(_message.Message):
    __slots__ = ("kind", "size_bytes", "fp32_bytes", "latency_us", "fp32_latency_us", "batch", "loss", "fp32_loss", "rows", "served", "runtime")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FP32_BYTES_FIELD_NUMBER: _ClassVar[int]
    LATENCY_US_FIELD_NUMBER: _ClassVar[int]
    FP32_LATENCY_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    FP32_LOSS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    size_bytes: int
    fp32_bytes: int
    latency_us: float
    fp32_latency_us: float
    batch: int
    loss: float
    fp32_loss: float
    rows: int
    served: bool
    runtime: str
    def __init__(self, kind: _Optional[str] = ..., size_bytes: _Optional[int] = ..., fp32_bytes: _Optional[int] = ..., latency_us: _Optional[float] = ..., fp32_latency_us: _Optional[float] = ..., batch: _Optional[int] = ..., loss: _Optional[float] = ..., fp32_loss: _Optional[float] = ..., rows: _Optional[int] = ..., served: _Optional[bool] = ..., runtime: _Optional[str] = ...) -> None: ...

class WatchModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchModelResponse(_message.Message):
    __slots__ = ("version", "variant", "prior_only")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    PRIOR_ONLY_FIELD_NUMBER: _ClassVar[int]
    version: Version
    variant: str
    prior_only: bool
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., variant: _Optional[str] = ..., prior_only: _Optional[bool] = ...) -> None: ...
