"""Every method says what its caller must be allowed; what says nothing needs admin."""

import re

from stream_app.serving.permissions import NEEDED, needed
from stream_app.wire import open_inference_pb2, stream_app_pb2

METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in (stream_app_pb2, open_inference_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def test_every_method_is_listed() -> None:
    assert [m for m in METHODS if m not in NEEDED] == [], "say in permissions.py what they need"


def test_what_is_not_listed_needs_admin() -> None:
    for method in ("/stream_app.v1.StreamModel/New", "/other.Service/Predict", "", "/"):
        assert needed(method) == ("admin",)


def test_what_changes_the_model_needs_more_than_predict() -> None:
    for method in METHODS:
        if re.search("Promote|Rollback|Pin|Load|Unload|Route|Canary|Shadow", method):
            assert "admin" in needed(method), method
        if re.search("Feedback|Learn", method):
            assert "feedback" in needed(method), method
