"""A probe is fresh when the first version that includes it is seen, or a later one."""

import msgspec

from bench._probes import probe
from bench.freshness import Seen, fresh_ms
from tests.stream_app.heads import head_of


def test_a_probe_waits_for_the_first_version_seen_that_includes_it() -> None:
    heads = [head_of(n, offsets={0: 10 * n}) for n in (1, 2, 3, 4)]
    seen = [Seen(1, 1.0), Seen(3, 3.0), Seen(4, 4.0)]  # the second was replaced before anyone saw it
    assert fresh_ms([(0.5, 9), (0.75, 10), (2.0, 29), (2.0, 30)], heads, seen) == [500.0, 2250.0, 1000.0, 2000.0]


def test_a_probe_has_features_and_label_whatever_it_is_like() -> None:
    for like in (
        {"id": "a", "key": "k", "time": 5, "features": {"carrier": "AA"}},
        {"id": "a", "key": "k", "label": 1, "label_time": 5},
    ):
        found = msgspec.json.decode(probe(3, msgspec.json.encode(like)))
        assert found.keys() == {"id", "time", "features", "label", "label_time"}
        assert (found["id"], found["label"], found["label_time"]) == ("probe-3", 1, 5)
