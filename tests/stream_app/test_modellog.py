"""Folding the models log: what counts, what does not, and where a trimmed log begins."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.modellog import (
    HISTORY,
    Announcement,
    Envelope,
    Fold,
    Hyper,
    LogRecord,
    Route,
    Variant,
    decode_record,
    encode_record,
    fold,
)


def envelope(id_: str, parent: Envelope | None = None, **changes: Any) -> Envelope:
    """A child of ``parent`` in its epoch, ten records further."""
    fields: dict[str, Any] = {
        "id": id_,
        "number": -1,  # the fold gives it
        "epoch": parent.epoch if parent else 1,
        "parent": parent.id if parent else None,
        "offsets": {p: o + 10 for p, o in parent.offsets.items()} if parent else {0: 0, 1: 0},
        "replay_from": {0: (0, -math.inf)},
        "predictions_from": {0: 0},
        "artefact": f"versions/{id_}.safetensors",
        "sha256": "0" * 64,
        "size_bytes": 1,
        "signature": "s",
        "topic_ids": {"m.events": "u1"},
        "labels": 3,
        "hyper": Hyper(learning_rate=0.01, half_life_events=100.0),
        "reference": None,
        "ledger": {0: (3, 2**64 - 1)},
        "metrics": {"auc": 0.5},
        "created_s": 1.0,
    }
    return Envelope(**fields | changes)


def announce(wish: Envelope, kind: Any = "version", **changes: Any) -> Announcement:
    return Announcement(**{"kind": kind, "envelope": wish, "parent_envelope": None, "parent_at": -1} | changes)


def variant(of_version: str, kind: Any = "int8", **changes: Any) -> Variant:
    fields: dict[str, Any] = {
        "of_version": of_version,
        "kind": kind,
        "artefact": "variants/0.onnx",
        "sha256": "0" * 64,
        "size_bytes": 1,
        "fp32_bytes": 4,
        "runtime": "onnxruntime-1-cpu",
        "batch": 1,
        "latency_us": 1.0,
        "fp32_latency_us": 2.0,
        "loss": 0.3,
        "fp32_loss": 0.3,
        "rows": 10,
        "served": True,
        "created_s": 2.0,
    }
    return Variant(**fields | changes)


A = envelope("a")
B = envelope("b", A)
C = envelope("c", B)


def folded(*records: LogRecord) -> Fold:
    return fold(enumerate(records))


def lineage(fold: Fold) -> list[tuple[str, int]]:
    return [(e.id, e.number) for _, e in fold.history]


def head_id(fold: Fold) -> str | None:
    return fold.head.id if fold.head else None


# Versions ------------------------------------------------------------------------------------------


def test_an_empty_log_has_no_head() -> None:
    assert (folded().head, folded().head_at) == (None, -1)


def test_a_log_that_begins_anew_goes_on_counting() -> None:
    again = announce(msgspec.structs.replace(A, number=41))
    assert fold([(0, again)]).head == msgspec.structs.replace(A, number=41)


def test_each_version_follows_its_parent_and_is_numbered_by_the_fold() -> None:
    found = folded(announce(A, inline=b"a"), announce(B), announce(C, inline=b"c"))
    assert lineage(found) == [("a", 1), ("b", 2), ("c", 3)]
    assert (found.head_at, found.head_inline, found.ignored) == (2, b"c", 0)
    assert found.head == msgspec.structs.replace(C, number=3)


def test_a_change_tells_the_record_and_the_head_after_it() -> None:
    found = Fold()
    record = announce(A)
    change = found.apply(4, record)
    assert change is not None
    assert (change.at, change.record, change.head) == (4, record, found.head)


def test_an_inline_artefact_is_not_kept_for_a_head_that_has_none() -> None:
    assert folded(announce(A, inline=b"a"), announce(B)).head_inline is None


def test_the_newest_inline_artefact_is_kept_while_versions_lie_between_it_and_the_next() -> None:
    begun = [announce(A, inline=b"a"), announce(B, between=True)]
    found = folded(*begun)
    assert found.inline is not None
    assert (found.inline.envelope.id, found.inline.data, found.between) == ("a", b"a", True)
    assert not folded(*begun, announce(C, inline=b"c")).between
    large = folded(*begun, announce(C))
    assert (large.inline, large.between) == (None, False)
    assert not folded(announce(A)).between


def test_a_first_version_has_no_parent() -> None:
    assert folded(announce(B)).head is None
    assert folded(announce(B), announce(A), announce(B)).ignored == 1


def test_a_duplicate_does_not_count() -> None:
    found = folded(announce(A), announce(A), announce(B), announce(A), announce(B))
    assert lineage(found) == [("a", 1), ("b", 2)]
    assert found.ignored == 3
    assert found.head_at == 2


def test_the_first_of_two_rivals_wins() -> None:
    rival = envelope("r", A)
    found = folded(announce(A), announce(rival), announce(B), announce(C), announce(envelope("s", rival)))
    assert lineage(found) == [("a", 1), ("r", 2), ("s", 3)]
    assert found.ignored == 2


@pytest.mark.parametrize("epoch", [0, 2, 5])
def test_a_version_keeps_its_parents_epoch(epoch: int) -> None:
    assert head_id(folded(announce(A), announce(envelope("b", A, epoch=epoch)))) == "a"


def test_history_remembers_the_newest_heads() -> None:
    records, parent = [announce(A)], A
    for i in range(HISTORY + 5):
        parent = envelope(f"v{i}", parent)
        records.append(announce(parent))
    found = folded(*records)
    assert len(found.history) == HISTORY
    assert found.history[-1] == (found.head_at, found.head)


# Promotions and new epochs ---------------------------------------------------------------------------


def promotion(**changes: Any) -> Announcement:
    return announce(envelope("p", A, **{"epoch": 2, "offsets": {0: 5, 1: 0}} | changes), "promotion")


def test_a_promotion_counts_whatever_version_came_in_between() -> None:
    found = folded(announce(A), announce(B), promotion())
    assert lineage(found) == [("a", 1), ("b", 2), ("p", 3)]
    assert found.head is not None
    assert found.head.offsets == {0: 5, 1: 0}


def test_what_was_learned_beside_a_promotion_is_void() -> None:
    found = folded(announce(A), announce(B), promotion(), announce(C))
    assert head_id(found) == "p"


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_promotion_raises_the_epoch_by_one(epoch: int) -> None:
    assert head_id(folded(announce(A), announce(B), promotion(epoch=epoch))) == "b"


def test_a_promotion_bound_to_an_epoch_that_has_passed_does_not_count() -> None:
    restored = envelope("e", B, epoch=2)
    assert head_id(folded(announce(A), announce(B), announce(restored, "epoch"), promotion())) == "e"
    assert head_id(folded(announce(A), announce(B), promotion(), promotion(id="q"))) == "p"


@pytest.mark.parametrize("offsets", [{0: 11, 1: 0}, {0: 5}, {0: 5, 1: 0, 2: 0}, {}])
def test_a_promotion_never_leads_the_head_and_knows_its_partitions(offsets: dict[int, int]) -> None:
    assert head_id(folded(announce(A), announce(B), promotion(offsets=offsets))) == "b"
    assert head_id(folded(announce(A), announce(B), promotion(offsets={0: 10, 1: 10}))) == "p"


def test_a_new_epoch_follows_the_head_and_may_go_anywhere() -> None:
    restored = envelope("e", B, epoch=2, offsets={0: 3, 1: 3, 2: 0})
    found = folded(announce(A), announce(B), announce(restored, "epoch"), announce(C))
    assert head_id(found) == "e"
    assert head_id(folded(announce(A), announce(restored, "epoch"))) == "a"  # its parent is not the head
    for epoch in (1, 3):
        wrong = envelope("e", B, epoch=epoch)
        assert head_id(folded(announce(A), announce(B), announce(wrong, "epoch"))) == "b"


def test_an_old_artefact_may_be_the_head_again_and_old_children_do_not_count_then() -> None:
    again = envelope("a", B, epoch=2, offsets={0: 0, 1: 0})
    found = folded(announce(A), announce(B), announce(again, "epoch"), announce(envelope("x", A)))
    assert lineage(found) == [("a", 1), ("b", 2), ("a", 3)]
    child = envelope("y", again)
    assert head_id(folded(announce(A), announce(B), announce(again, "epoch"), announce(child))) == "y"


# Adoptions -------------------------------------------------------------------------------------------


def adoption(**changes: Any) -> Announcement:
    return announce(envelope("o", A, **{"epoch": 2, "offsets": {0: 5, 1: 0}} | changes), "adoption")


def test_an_adoption_stands_where_the_head_stands_whatever_came_in_between() -> None:
    last = envelope("b", A, ledger={0: (9, 7)}, labels=9, metrics={"auc": 0.75}, topic_ids={"m.events": "u2"})
    found = folded(announce(A), announce(last), adoption(hyper=Hyper(learning_rate=0.5, half_life_events=9.0)))
    assert lineage(found) == [("a", 1), ("b", 2), ("o", 3)]
    head = found.head
    assert head is not None
    assert (head.parent, head.epoch, head.hyper.learning_rate) == ("b", 2, 0.5)
    for name in ("offsets", "replay_from", "predictions_from", "topic_ids", "labels", "ledger", "metrics", "classes"):
        assert getattr(head, name) == getattr(last, name)


def test_what_was_learned_beside_an_adoption_is_void() -> None:
    assert head_id(folded(announce(A), announce(B), adoption(), announce(C))) == "o"


@pytest.mark.parametrize("changes", [{"epoch": 1}, {"epoch": 3}, {"signature": "other"}])
def test_an_adoption_raises_the_epoch_by_one_and_keeps_the_meaning(changes: dict[str, Any]) -> None:
    assert head_id(folded(announce(A), announce(B), adoption(**changes))) == "b"
    assert head_id(folded(adoption(**changes))) is None


def test_the_first_of_two_adoptions_wins() -> None:
    assert head_id(folded(announce(A), adoption(), adoption(id="q"), promotion())) == "o"


# Routes ----------------------------------------------------------------------------------------------


def route(after: int, **changes: Any) -> Route:
    return Route(**{"after": after, "created_s": 1.0} | changes)


def test_a_route_counts_only_behind_the_one_that_its_writer_had_read() -> None:
    found = folded(announce(A), route(-1, reason="x"), announce(B), route(-1, reason="late"), route(1, reason="y"))
    assert (found.route, found.route_at, found.ignored) == (route(1, reason="y"), 4, 1)
    assert head_id(found) == "b"  # learning goes on


def test_before_there_is_a_version_there_is_no_route() -> None:
    found = folded(route(-1), announce(A))
    assert (found.route, found.route_at, found.ignored) == (None, -1, 1)


def test_a_trimmed_log_takes_its_route_from_the_first_sure_announcement() -> None:
    pinned = route(-1, pinned=A)
    log: list[tuple[int, LogRecord]] = [(0, announce(A)), (1, pinned)]
    head = folded(announce(A)).head
    log.append((2, announce(B, parent_envelope=head, parent_at=0, route=pinned, route_at=1)))
    second = folded(announce(A), announce(B)).head
    log.append((3, announce(C, parent_envelope=second, parent_at=2, route=pinned, route_at=1)))
    log.append((4, route(1, reason="unpinned")))
    for start in (1, 2, 3):
        assert fold(log[start:4], log_start=start).route == pinned
        found = fold(log[start:], log_start=start)
        assert (found.route, found.route_at) == (route(1, reason="unpinned"), 4)


# Variants --------------------------------------------------------------------------------------------


def test_a_variant_is_attached_to_the_head_and_goes_with_it() -> None:
    found = folded(announce(A), variant("a", loss=0.1))
    assert found.variants["int8"].loss == 0.1
    assert found.head_at == 0
    found.apply(2, announce(B))
    assert found.variants == {}


def test_a_variant_of_another_version_does_not_count() -> None:
    found = folded(variant("a"), announce(A), variant("z"), announce(B), variant("a"))
    assert found.variants == {}
    assert found.ignored == 3
    assert head_id(found) == "b"


def test_a_newer_variant_replaces_the_older() -> None:
    found = Fold()
    found.apply(0, announce(A))
    found.apply(1, variant("a", loss=0.1))
    change = found.apply(2, variant("a", loss=0.2))
    assert change is not None
    assert change.head == found.head
    assert found.variants["int8"].loss == 0.2


# Rule 16: a trimmed log --------------------------------------------------------------------------------


def whole(*announcements: Announcement) -> list[tuple[int, Announcement]]:
    """The same with what their writers read: the head then, whole, and where it was."""
    found, log = Fold(), []
    for at, record in enumerate(announcements):
        record = msgspec.structs.replace(record, parent_envelope=found.head, parent_at=found.head_at)
        found.apply(at, record)
        log.append((at, record))
    return log


def test_a_trimmed_log_begins_at_the_parent_of_its_first_sure_announcement() -> None:
    log = whole(announce(A), announce(B), announce(C))
    assert fold(log[1:], log_start=1).head == fold(log).head
    found = fold(log[2:], log_start=2)
    assert (found.head, found.head_at) == (fold(log).head, 2)
    assert lineage(found) == [("b", 2), ("c", 3)]


def test_an_announcement_whose_parent_was_read_before_the_cut_says_nothing_sure() -> None:
    """Between its parent and the cut there may have been another head."""
    log = whole(announce(A), announce(B), announce(C))
    late = msgspec.structs.replace(announce(envelope("r", A)), parent_envelope=fold(log[:1]).head, parent_at=0)
    assert fold([(3, late)], log_start=3).head is None
    assert fold([(3, late)], log_start=2).head is None
    found = fold([*log[2:], (3, late)], log_start=2)
    assert head_id(found) == "c"


def test_a_doomed_announcement_still_tells_who_was_the_head() -> None:
    log = whole(announce(A), announce(B))
    doomed = msgspec.structs.replace(announce(envelope("x", A)), parent_envelope=fold(log).head, parent_at=1)
    found = fold([(2, doomed)], log_start=2)
    assert (head_id(found), found.head_at) == ("b", 1)


def test_a_promotion_before_the_first_sure_announcement_is_not_lost() -> None:
    """Its writer had read an older head; the first sure announcement had not seen it yet, and is void."""
    log = whole(announce(A), announce(B), announce(C))
    late = msgspec.structs.replace(promotion(), parent_envelope=fold(log[:1]).head, parent_at=0)
    doomed = msgspec.structs.replace(announce(envelope("d", C)), parent_envelope=fold(log).head, parent_at=2)
    log += [(3, late), (4, variant("p")), (5, doomed)]
    found = fold(log[3:], log_start=3)
    assert (found.head, found.head_at) == (fold(log).head, 3)
    assert head_id(found) == "p"
    assert found.variants.keys() == {"int8"}
    assert found.ignored == 1


def test_a_trimmed_log_never_begins_anew_by_itself() -> None:
    assert fold([(5, announce(A))], log_start=5).head is None
    assert fold([(5, variant("a"))], log_start=5).head is None


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[int, LogRecord]]:
    """Honest writers; some read the head long before they write."""
    found = Fold()
    log: list[tuple[int, LogRecord]] = []
    seen: list[tuple[Envelope | None, int]] = [(None, -1)]
    routes: list[tuple[Route | None, int]] = [(None, -1)]
    kinds = st.sampled_from(["version", "version", "epoch", "promotion", "adoption", "route", "variant"])
    for at, (lag, kind) in enumerate(draw(st.lists(st.tuples(st.integers(0, 3), kinds), min_size=1, max_size=15))):
        parent, parent_at = seen[max(0, len(seen) - 1 - lag)]
        record: LogRecord
        if parent is None:
            record = announce(envelope(f"v{at}"))
        elif kind == "variant":
            record = variant(parent.id)
        elif kind == "route":
            record = route(routes[max(0, len(routes) - 1 - lag)][1], reason=f"r{at}")
        else:
            wish = envelope(f"v{at}", parent, epoch=parent.epoch + (kind != "version"))
            if kind == "promotion":
                wish = msgspec.structs.replace(wish, offsets=parent.offsets)
            known, known_at = next(r for r in reversed(routes) if r[1] <= parent_at or lag == 0)
            record = announce(wish, kind, parent_envelope=parent, parent_at=parent_at, route=known, route_at=known_at)
        change = found.apply(at, record)
        if change and change.record is record and isinstance(record, Announcement):
            seen.append((found.head, at))
        if change and change.record is record and isinstance(record, Route):
            routes.append((record, at))
        log.append((at, record))
    return log


@settings(deadline=None, derandomize=True, max_examples=300)
@given(logs(), st.data())
def test_whatever_is_trimmed_the_rest_folds_to_the_same_head_or_to_none(
    log: list[tuple[int, LogRecord]], data: st.DataObject
) -> None:
    start = data.draw(st.integers(1, len(log)))
    trimmed, full = fold(log[start:], log_start=start), fold(log)
    if any(isinstance(r, Announcement) and r.parent_at + 1 >= start for _, r in log[start:]):
        assert (trimmed.head, trimmed.head_at) == (full.head, full.head_at)
        assert (trimmed.route, trimmed.route_at) == (full.route, full.route_at)
        if full.head_at >= start:
            assert trimmed.variants == full.variants
    else:
        assert trimmed.head is None


# On the wire -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        announce(A),
        announce(B, "promotion", parent_envelope=A, parent_at=7, inline=b"\0\xff" * 9),
        variant("a", inline=b"graph"),
        Route(after=7, pinned=A, reason="r", by="ann", created_s=1.0),
    ],
)
def test_what_is_encoded_is_decoded_alike(record: LogRecord) -> None:
    assert decode_record(encode_record(record)) == record


def test_infinite_clocks_and_undefined_metrics_survive() -> None:
    record = decode_record(encode_record(announce(envelope("a", metrics={"auc": math.nan}))))
    assert isinstance(record, Announcement)
    assert record.envelope.replay_from == {0: (0, -math.inf)}
    assert math.isnan(record.envelope.metrics["auc"])


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x00", b"{}", b"\xff" * 10, encode_record(announce(A))[:-1], msgspec.msgpack.encode({"type": "else"})],
)
def test_garbage_is_a_value_error(garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_record(garbage)


def test_fields_of_a_newer_program_are_ignored() -> None:
    table = msgspec.msgpack.decode(encode_record(announce(A)), strict=False)
    table["newer"] = 1
    assert decode_record(msgspec.msgpack.encode(table)) == announce(A)
