"""A short run of ``bench.fuzz``: no status that blames the server, whatever is sent."""

import os
import random
from typing import Any

from bench.fuzz import ALLOWED, NAME, Asked, fuzz_grpc, fuzz_http, right
from tests.stream_app.servers import number, serving
from tests.stream_app.versions import artefact, looking, spec_of, until, writing


def test_nothing_that_is_sent_is_the_servers_fault(embedded_broker: Any) -> None:
    servers, ports, rng = embedded_broker.bootstrap_servers, [], random.Random(7)
    with (
        writing(servers, spec_of(NAME)) as writer,
        serving(servers, NAME, rest="127.0.0.1:0", rest_ready=ports.append) as client,
    ):
        writer.announce(artefact(writer.spec, graph=looking(writer.spec)))
        until(lambda: number(client) == 1)
        asked = Asked(client.targets[0], f"127.0.0.1:{ports[0]}", os.getpid())
        statuses = fuzz_grpc(asked, rng, 15) + fuzz_http(asked, rng, 15)
        right(asked)
    assert sum(statuses.values()) > 300
    assert statuses.keys() <= ALLOWED | {"no HTTP"}
