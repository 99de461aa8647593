"""Both services over HTTP, and what describes them: answers -> [over_http] -> Rest."""

from importlib import metadata

from stream_app.serving import openapi
from stream_app.serving.answers import Answers
from stream_app.serving.counts import Counts
from stream_app.serving.jsons import Schema
from stream_app.serving.limits import Limits, Room
from stream_app.serving.oip import OpenInference
from stream_app.serving.oip_rest import OpenInferenceOverHTTP
from stream_app.serving.rest import Rest
from stream_app.serving.routes import Reply, encoded, own
from stream_app.serving.security import Guard
from stream_app.serving.source import Source


def over_http(
    answers: Answers,
    inference: OpenInference,
    source: Source,
    limits: Limits,
    *,
    guard: Guard,
    room: Room,
    listen: str,
    counts: Counts,
) -> Rest:
    """Both services over HTTP, and what describes them."""
    schemas: dict[str, Schema] = {}
    routes = [*own(answers, schemas), *OpenInferenceOverHTTP(inference, source, limits).routes(schemas)]
    documents = {
        "/openapi.json": Reply(encoded(openapi.document(routes, schemas, metadata.version("stream-app")))),
        "/docs": Reply(openapi.page(routes, schemas).encode(), openapi.PAGE_HEADERS),
    }
    return Rest(routes, documents, guard, limits, room, listen, counts)
