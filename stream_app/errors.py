"""Every error the service raises on purpose; each message says what, what it got and what was wanted.

    StreamAppError
    ├── SettingsError      a flag or an environment variable is wrong
    ├── DecodeError        a record of the events topic cannot be an event
    ├── ExampleError       what a producer was given is no example
    ├── LetterError        a dead letter cannot, or should not, be sent again
    ├── BrokerError        the broker is missing, dead or refuses
    │   ├── TopicError     a topic is missing, recreated, shorter than what the model has seen
    │   ├── DeliveryError  examples were sent and not acknowledged
    │   └── StuckError     lag is there and the position does not advance
    ├── ModelLogError      the models topic and the model do not fit together
    │   ├── EpochError     head and spec, or head and topics, differ: a new epoch must be chosen
    │   ├── VersionError   what was asked for cannot be done with this version
    │   │   └── NoVersionError  there is no such version, or several
    │   └── OvertakenError someone else's decision came first: look again
    ├── RegistryError      an artefact is missing, torn or tampered with
    └── ServingError       a request cannot be answered; carries the gRPC status by name

``models.spec.SpecError`` (a wrong model.toml) stands beside them: models/ knows nothing of stream_app/.
"""


class StreamAppError(Exception):
    """Base of all; ``stream-app`` prints its text and exits with ``exit_code``."""

    exit_code = 1
    """1: may pass, a supervisor should start again. 2: a refusal, someone must choose or mend something first."""


class SettingsError(StreamAppError):
    exit_code = 2


class DecodeError(StreamAppError):
    pass


class ExampleError(StreamAppError):
    exit_code = 2


class LetterError(StreamAppError):
    exit_code = 2


class BrokerError(StreamAppError):
    pass


class TopicError(BrokerError):
    exit_code = 2


class DeliveryError(BrokerError):
    pass


class StuckError(BrokerError):
    pass


class ModelLogError(StreamAppError):
    pass


class EpochError(ModelLogError):
    exit_code = 2


class VersionError(ModelLogError):
    exit_code = 2


class NoVersionError(VersionError):
    pass


class OvertakenError(ModelLogError):
    pass


class RegistryError(StreamAppError):
    pass


class ServingError(StreamAppError):
    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        """Name of a ``grpc.StatusCode``, such as INVALID_ARGUMENT."""
