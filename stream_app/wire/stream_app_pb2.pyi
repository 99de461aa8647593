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
    __slots__ = ("rows", "columns", "explain", "key")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    columns: Columns
    explain: Explain
    key: str
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., columns: _Optional[_Union[Columns, _Mapping]] = ..., explain: _Optional[_Union[Explain, str]] = ..., key: _Optional[str] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("predictions", "scores", "model", "version", "version_id", "epoch", "variant", "prior_only", "staleness", "role")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    PRIOR_ONLY_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    scores: Scores
    model: str
    version: int
    version_id: str
    epoch: int
    variant: str
    prior_only: bool
    staleness: Staleness
    role: str
    def __init__(self, predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., scores: _Optional[_Union[Scores, _Mapping]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., version_id: _Optional[str] = ..., epoch: _Optional[int] = ..., variant: _Optional[str] = ..., prior_only: _Optional[bool] = ..., staleness: _Optional[_Union[Staleness, _Mapping]] = ..., role: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("model", "task", "label_name", "classes", "features", "version", "variant", "prior_only", "staleness", "offsets", "labels", "metrics", "hyper", "variants", "importance", "members", "pinned", "alarm", "trial")
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
    PINNED_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    TRIAL_FIELD_NUMBER: _ClassVar[int]
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
    pinned: bool
    alarm: str
    trial: Trial
    def __init__(self, model: _Optional[str] = ..., task: _Optional[str] = ..., label_name: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., version: _Optional[_Union[Version, _Mapping]] = ..., variant: _Optional[str] = ..., prior_only: _Optional[bool] = ..., staleness: _Optional[_Union[Staleness, _Mapping]] = ..., offsets: _Optional[_Mapping[int, int]] = ..., labels: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., hyper: _Optional[_Union[Hyper, _Mapping]] = ..., variants: _Optional[_Iterable[_Union[Variant, _Mapping]]] = ..., importance: _Optional[_Mapping[str, float]] = ..., members: _Optional[_Mapping[str, float]] = ..., pinned: _Optional[bool] = ..., alarm: _Optional[str] = ..., trial: _Optional[_Union[Trial, _Mapping]] = ...) -> None: ...

class Trial(_message.Message):
    __slots__ = ("mode", "version", "percent", "key", "rows", "failed", "dropped", "differing", "mean_difference")
    MODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    MEAN_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    mode: str
    version: Version
    percent: float
    key: str
    rows: int
    failed: int
    dropped: int
    differing: int
    mean_difference: float
    def __init__(self, mode: _Optional[str] = ..., version: _Optional[_Union[Version, _Mapping]] = ..., percent: _Optional[float] = ..., key: _Optional[str] = ..., rows: _Optional[int] = ..., failed: _Optional[int] = ..., dropped: _Optional[int] = ..., differing: _Optional[int] = ..., mean_difference: _Optional[float] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ListedVersion]
    def __init__(self, versions: _Optional[_Iterable[_Union[ListedVersion, _Mapping]]] = ...) -> None: ...

class ListedVersion(_message.Message):
    __slots__ = ("version", "size_bytes", "labels", "metrics", "variants", "where", "roles")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    version: Version
    size_bytes: int
    labels: int
    metrics: _containers.ScalarMap[str, float]
    variants: _containers.RepeatedScalarFieldContainer[str]
    where: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., size_bytes: _Optional[int] = ..., labels: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., variants: _Optional[_Iterable[str]] = ..., where: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("version", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: str
    reason: str
    def __init__(self, version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: Version
    def __init__(self, head: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("version", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: str
    reason: str
    def __init__(self, version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PromoteResponse(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: Version
    def __init__(self, head: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("version", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: str
    reason: str
    def __init__(self, version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PinResponse(_message.Message):
    __slots__ = ("pinned",)
    PINNED_FIELD_NUMBER: _ClassVar[int]
    pinned: Version
    def __init__(self, pinned: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class UnpinRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class UnpinResponse(_message.Message):
    __slots__ = ("unpinned",)
    UNPINNED_FIELD_NUMBER: _ClassVar[int]
    unpinned: Version
    def __init__(self, unpinned: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class CanaryRequest(_message.Message):
    __slots__ = ("version", "reason", "percent", "key", "only_judge")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    ONLY_JUDGE_FIELD_NUMBER: _ClassVar[int]
    version: str
    reason: str
    percent: float
    key: str
    only_judge: bool
    def __init__(self, version: _Optional[str] = ..., reason: _Optional[str] = ..., percent: _Optional[float] = ..., key: _Optional[str] = ..., only_judge: _Optional[bool] = ...) -> None: ...

class CanaryResponse(_message.Message):
    __slots__ = ("canary",)
    CANARY_FIELD_NUMBER: _ClassVar[int]
    canary: Version
    def __init__(self, canary: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class ShadowRequest(_message.Message):
    __slots__ = ("version", "reason", "percent", "only_judge")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    ONLY_JUDGE_FIELD_NUMBER: _ClassVar[int]
    version: str
    reason: str
    percent: float
    only_judge: bool
    def __init__(self, version: _Optional[str] = ..., reason: _Optional[str] = ..., percent: _Optional[float] = ..., only_judge: _Optional[bool] = ...) -> None: ...

class ShadowResponse(_message.Message):
    __slots__ = ("shadow",)
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    shadow: Version
    def __init__(self, shadow: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class WithdrawRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class WithdrawResponse(_message.Message):
    __slots__ = ("withdrawn",)
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    withdrawn: Version
    def __init__(self, withdrawn: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class UnlabelledExample(_message.Message):
    __slots__ = ("id", "row", "key", "weight")
    ID_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    id: str
    row: Row
    key: str
    weight: float
    def __init__(self, id: _Optional[str] = ..., row: _Optional[_Union[Row, _Mapping]] = ..., key: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class PredictThenLearnRequest(_message.Message):
    __slots__ = ("examples",)
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    examples: _containers.RepeatedCompositeFieldContainer[UnlabelledExample]
    def __init__(self, examples: _Optional[_Iterable[_Union[UnlabelledExample, _Mapping]]] = ...) -> None: ...

class PredictThenLearnResponse(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: PredictResponse
    def __init__(self, response: _Optional[_Union[PredictResponse, _Mapping]] = ...) -> None: ...

class ExampleLabel(_message.Message):
    __slots__ = ("id", "key", "label", "time_s", "weight")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    id: str
    key: str
    label: Value
    time_s: float
    weight: float
    def __init__(self, id: _Optional[str] = ..., key: _Optional[str] = ..., label: _Optional[_Union[Value, _Mapping]] = ..., time_s: _Optional[float] = ..., weight: _Optional[float] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[ExampleLabel]
    def __init__(self, labels: _Optional[_Iterable[_Union[ExampleLabel, _Mapping]]] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

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
