"""The load notices what goes back; the picture has every figure."""

from bench._serving_load import Seen
from bench._serving_plot import BARS, drawn
from bench.serving import summary
from stream_app.wire import stream_app_pb2 as pb


def answer(version: int, epoch: int = 1, variant: str = "fp32") -> pb.PredictResponse:
    return pb.PredictResponse(version=version, epoch=epoch, variant=variant)


def test_an_older_answer_than_one_before_the_call_goes_back() -> None:
    seen = Seen()
    early = seen.before()
    seen.add(answer(5), seen.before())
    seen.add(answer(4), early)  # asked before 5 was known
    assert seen.backwards == 0
    seen.add(answer(3, variant="int8"), seen.before())
    assert seen.backwards == 0
    seen.add(answer(4), seen.before())
    assert seen.backwards == 1


def test_a_rollback_is_a_higher_epoch_and_no_step_back() -> None:
    seen = Seen()
    seen.add(answer(5), seen.before())
    seen.add(answer(2, epoch=2), seen.before())
    assert seen.backwards == 0


def test_every_figure_of_the_picture_is_measured() -> None:
    names = ("unary", "noop_unary", "columns", "noop_columns", "torch_columns")
    more = ("rows", "noop_rows", "torch_rows", "stream", "noop_stream")
    found = summary({name: 1000.0 + i for i, name in enumerate(names + more)})
    picture = drawn(found | {"p99_ms": 3.0, "swap_p99_ms": 4.0})
    assert all(title in picture for title in BARS)
    assert f"{32 * 1002.0:,.0f}" in picture
