"""What a caller must be allowed to do, method by method; what is not listed needs admin."""

from typing import Literal

Permission = Literal["predict", "feedback", "admin"]

_HEALTH = "grpc.health.v1.Health"
_REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_OURS = "stream_app.v1.StreamModel"
_OIP = "inference.GRPCInferenceService"

_NEEDED: dict[tuple[Permission, ...], tuple[str, ...]] = {
    # Balancers and orchestrators ask these, and have no tokens.
    (): (
        *(f"{_HEALTH}/{name}" for name in ("Check", "List", "Watch")),
        *(f"{_OIP}/{name}" for name in ("ServerLive", "ServerReady", "ModelReady")),
    ),
    ("predict",): (
        *(f"{_OURS}/{name}" for name in ("Predict", "PredictStream", "GetModel", "WatchModel", "ListVersions")),
        *(f"{_OIP}/{name}" for name in ("ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex")),
        *(f"{service}/ServerReflectionInfo" for service in _REFLECTION),
    ),
    # What it is told, it will learn.
    ("feedback",): (f"{_OURS}/Feedback",),
    ("predict", "feedback"): (f"{_OURS}/PredictThenLearn",),
    ("admin",): (
        *(f"{_OURS}/{name}" for name in ("Promote", "Rollback", "Pin", "Unpin", "Canary", "Shadow", "Withdraw")),
        *(f"{_OIP}/{name}" for name in ("RepositoryModelLoad", "RepositoryModelUnload")),
    ),
}
NEEDED = {f"/{method}": needed for needed, methods in _NEEDED.items() for method in methods}
"""Method, as gRPC names it -> all that its caller must be allowed."""


def needed(method: str) -> tuple[Permission, ...]:
    """What the caller of ``/package.Service/Method`` must be allowed, all of it."""
    return NEEDED.get(method, ("admin",))
