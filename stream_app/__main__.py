"""The commands: those of ``operator``, and

worker | tuner | compressor | serve | monitor | lag | dead-letters | produce | up
"""

import argparse
import gc
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from models.spec import LONGEST_S, ModelSpec, SpecError, read_spec
from stream_app import operator, redrive
from stream_app.errors import StreamAppError
from stream_app.events import Topics
from stream_app.registry import Registry

_QUIET = {
    "kafka": logging.CRITICAL,  # logs an error for every consumer that is closed
    "aiohttp.server": logging.CRITICAL,  # logs a traceback for bytes that are no HTTP
    "aiokafka": logging.ERROR,
    "faust": logging.ERROR,
    "mode": logging.ERROR,
}
"""What libraries log, unless --log-level is debug."""
GC_THRESHOLDS = (100_000, 20, 50)
"""Of a worker. Records are many and hold no cycles: Python's own thresholds have it look for some all the time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; wrong input ends with its reason and exit code 2."""
    args, unknown = build_parser().parse_known_args(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    if unknown:  # parse_args would say so with the usage of all commands
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    logging.basicConfig(level=args.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    quiet = {
        "kafka": logging.CRITICAL,
        "aiohttp.server": logging.CRITICAL,
        "aiokafka": logging.ERROR,
        "faust": logging.ERROR,
        "mode": logging.ERROR,
    }
    # kafka-python logs an error for every consumer that is closed, aiohttp a traceback for bytes that are no HTTP.
    for library, level in quiet.items():
        logging.getLogger(library).setLevel(logging.DEBUG if args.log_level == "debug" else level)
    try:
        return int(args.command(args, read_spec(args.spec)))
    except (StreamAppError, SpecError) as error:
        print(f"stream-app: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags; each flag is documented here and nowhere else."""
    parser = argparse.ArgumentParser(
        prog="stream-app",
        description="A model that never stops learning: Kafka events in, gRPC answers out.",
        epilog="`stream-app up --spec examples/flights/model.toml` runs everything on this machine.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("worker", _worker, "learn from the events topic and publish versions"),
        ("tuner", _tuner, "search better hyperparameters on replay, shadow the winner, promote it"),
        ("compressor", _compressor, "quantise versions to int8 and attach those within the loss budget"),
        ("serve", _serve, "answer over gRPC, and HTTP if asked to, with the newest version"),
        ("monitor", _monitor, "Prometheus endpoint and live view: lag, loss, drift, versions"),
        ("lag", _lag, "per partition: end offset, offset in the newest version, lag"),
        ("dead-letters", _dead_letters, "list what could not be an event, and send it again once it can"),
        ("reproduce", _reproduce, "learn again what versions say they have learned, and compare to the bit"),
        ("produce", _produce, "send a file of examples, CSV or JSON lines, to the events topic"),
        ("up", _up, "all of it on this machine, with an embedded broker if none is named"),
        *operator.COMMANDS,
    ):
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command, parser=sub)
        _common(sub, broker_required=name != "up")
        if name not in ("monitor", "lag", "dead-letters", "produce"):
            _add_registry(sub)
        if add := (_ADD | operator.ADD).get(name):
            add(sub)
    return parser


def _common(sub: argparse.ArgumentParser, *, broker_required: bool) -> None:
    sub.add_argument("--spec", required=True, metavar="FILE", help="the model.toml that describes the model")
    sub.add_argument(
        "--bootstrap-servers",
        required=broker_required,
        type=_servers,
        metavar="HOST:PORT[,...]",
        help="the Kafka brokers" + ("" if broker_required else " (default: start an embedded one)"),
    )
    sub.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="how much is logged (default: %(default)s)",
    )


def _add_registry(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--registry",
        metavar="URL",
        default="runs/registry",
        help="where artefacts are kept, a folder per model: a path or any fsspec URL (default: %(default)s)",
    )


def _add_worker(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--on-mismatch",
        default="refuse",
        choices=("refuse", "keep", "fresh"),
        help="if the newest version does not fit the spec, or does not fit the topics: refuse to start; keep what "
        "was learned as far as it fits, in a new epoch; or begin afresh (default: %(default)s)",
    )
    sub.add_argument(
        "--stuck-s",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="end with an error if records wait and none has come for S seconds (default: %(default)g)",
    )


def _add_serve(sub: argparse.ArgumentParser) -> None:
    _add_address(sub, "--listen", "127.0.0.1:50051", "where to answer")
    _add_rest(sub)
    sub.add_argument(
        "--prometheus",
        type=_address,
        metavar="HOST:PORT",
        help="where Prometheus finds /metrics of this server; of several processes, each has a port, from PORT on",
    )
    sub.add_argument(
        "--tokens",
        metavar="FILE",
        help="TOML file of those who may call (docs/serving.md); read again when it changes. Without it, whoever is on "
        "this machine may do everything, and others may ask for predictions",
    )
    sub.add_argument(
        "--tls-cert", metavar="FILE", help="PEM file of the server's certificate, and those that signed it"
    )
    sub.add_argument("--tls-key", metavar="FILE", help="PEM file of its key")
    sub.add_argument(
        "--tls-client-ca", metavar="FILE", help="PEM file of what signs callers' certificates: they must have one"
    )
    sub.add_argument(
        "--share-port",
        action="store_true",
        help="let several servers, all with this flag, listen on one port; the kernel spreads connections over "
        "them, not calls: a client's stay with the server that it reached",
    )
    sub.add_argument(
        "--processes",
        type=_count,
        default=1,
        metavar="N",
        help="answer with N processes on one port, started again when they crash (default: %(default)s)",
    )
    sub.add_argument(
        "--log-events",
        action="store_true",
        help="take examples and labels (PredictThenLearn, Feedback) and put them on the events topic, to be learned",
    )
    sub.add_argument("--reflection", action="store_true", help="let clients list the services")
    sub.add_argument(
        "--drain-s",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="on SIGTERM, let calls finish for at most S seconds (default: %(default)g)",
    )


def _add_monitor(sub: argparse.ArgumentParser) -> None:
    _add_address(sub, "--prometheus", "127.0.0.1:9464", "where Prometheus finds /metrics")
    sub.add_argument("--view", action="store_true", help="show the live view instead of log lines")


def _add_lag(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="print one JSON object")
    sub.add_argument("--watch", type=_seconds, metavar="S", help="print again every S seconds, until Ctrl-C")


def _add_produce(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--file", required=True, type=Path, metavar="FILE", help="ends with .csv or .jsonl")
    sub.add_argument("--topic", metavar="NAME", help="an existing topic (default: the model's events topic)")
    for column in ("id", "time", "label", "label-time", "weight", "key"):
        sub.add_argument(
            f"--{column}",
            default=column.replace("-", "_"),
            metavar="COLUMN",
            help="of a CSV file, where it is not called %(default)s",
        )


def _add_reproduce(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Learn again, from the topics alone, what each version that the log names says it has learned, and compare "
        "all of its state to the bit. Exit code 1: one differs. Not tried are beginnings, rollbacks and promotions, "
        "and what stands on a file or on records that are not there any more."
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object per version")


def _add_up(sub: argparse.ArgumentParser) -> None:
    _add_worker(sub)
    _add_address(sub, "--listen", "127.0.0.1:50051", "where the server answers")
    _add_rest(sub)
    _add_address(sub, "--prometheus", "127.0.0.1:9464", "where Prometheus finds /metrics")
    sub.add_argument("--run-dir", default="runs/up", metavar="FOLDER", help="logs (default: %(default)s)")
    sub.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="processes that share the events topic's partitions; more are started by hand (default: %(default)s)",
    )


def _add_rest(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--rest", type=_address, metavar="HOST:PORT", help="where to answer over HTTP, too; /docs there says what"
    )


def _add_address(sub: argparse.ArgumentParser, flag: str, default: str, text: str) -> None:
    sub.add_argument(
        flag,
        type=_address,
        default=default,
        metavar="HOST:PORT",
        help=f"{text}; port 0 takes a free one (default: %(default)s)",
    )


def _version() -> str:
    try:
        return metadata.version("stream-app")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "(not installed)"


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:  # gRPC would take 65536 for 0
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted HOST:PORT")
    return text


def _servers(text: str) -> str:
    return ",".join(_address(server.strip()) for server in text.split(","))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number from 1 to 256")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted seconds above 0 and at most {LONGEST_S:.0f}")
    return seconds


_ADD = {
    "worker": _add_worker,
    "serve": _add_serve,
    "monitor": _add_monitor,
    "lag": _add_lag,
    "dead-letters": redrive.add_flags,
    "reproduce": _add_reproduce,
    "produce": _add_produce,
    "up": _add_up,
}


# Each command imports what it needs: what only serves or watches never loads torch or Faust.


def _worker(args: argparse.Namespace, spec: ModelSpec) -> int:
    from models.torch_learner import use_one_thread
    from stream_app import agents, learn, records
    from stream_app.codecs.mixed import Codec
    from stream_app.seed import Seeder
    from stream_app.topics import connect, create_topics

    learn.warm(spec)  # what no learner takes ends here, before there are topics; and no record waits for a compiler
    records.warm()
    Codec(spec).warm()
    connect(args.bootstrap_servers)
    use_one_thread()
    create_topics(
        args.bootstrap_servers,
        spec.name,
        partitions=spec.stream.partitions,
        retention_s=spec.stream.retention_s,
        max_record_bytes=spec.stream.max_record_bytes,
    )
    seeder = Seeder(
        spec,
        bootstrap_servers=args.bootstrap_servers,
        registry=_registry(args, spec),
        on_mismatch=args.on_mismatch,
    )
    gc.freeze()  # modules and compiled code stay; looking through them at every collection takes a third of the time
    gc.set_threshold(*GC_THRESHOLDS)
    agents.run(seeder, bootstrap_servers=args.bootstrap_servers, stuck_s=args.stuck_s)


def _tuner(args: argparse.Namespace, spec: ModelSpec) -> int:
    from models.torch_learner import use_one_thread
    from stream_app import tune
    from stream_app.decisions import DecisionWriter
    from stream_app.logclient import LogClient
    from stream_app.replay import Reader
    from stream_app.topics import connect, topic_ids

    connect(args.bootstrap_servers)
    use_one_thread()
    topics, brokers, stop = Topics.of(spec.name), args.bootstrap_servers, _stop_on_signals()
    tuner = tune.Tuner(
        spec,
        models=LogClient(brokers, topics.models),
        registry=_registry(args, spec),
        reader=Reader(brokers),
        decisions=DecisionWriter(brokers, topics.decisions),
        topic_ids=topic_ids(brokers, (topics.events, topics.predictions)),
        stop=stop,
    )
    tune.run(tuner, stop)
    return 0


def _compressor(args: argparse.Namespace, spec: ModelSpec) -> int:
    from stream_app import compress
    from stream_app.decisions import DecisionWriter
    from stream_app.logclient import LogClient
    from stream_app.replay import Reader, recent_examples
    from stream_app.topics import connect

    connect(args.bootstrap_servers)
    topics, brokers, reader = Topics.of(spec.name), args.bootstrap_servers, Reader(args.bootstrap_servers)
    compressor = compress.Compressor(
        spec,
        LogClient(brokers, topics.models),
        _registry(args, spec),
        partial(recent_examples, spec, reader, topics, rows=spec.compression.calibration_rows),
        DecisionWriter(brokers, topics.decisions).write,
        time.time,
    )
    compress.run(compressor, _stop_on_signals(), every_s=spec.compression.every_s)
    return 0


def _registry_url(args: argparse.Namespace, spec: ModelSpec) -> str:
    """Each model has a folder of its own in the registry."""
    return f"{args.registry.rstrip('/')}/{spec.name}"


def _registry(args: argparse.Namespace, spec: ModelSpec) -> Registry:
    return Registry(_registry_url(args, spec))


def _stop_on_signals() -> threading.Event:
    """Set at SIGTERM and Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _several(args: argparse.Namespace) -> int:
    """``serve`` as many processes; of a flag that is given twice the last one counts."""
    from stream_app import several

    with several.reserved(args.listen) as listen:
        own = ["--processes", "1", "--share-port", "--listen", listen]
        argv = [sys.executable, "-m", "stream_app", *args.argv, *own]
        metrics = several.ports_from(args.prometheus, args.processes) if args.prometheus else [()] * args.processes
        return several.run([[*argv, *each] for each in metrics], _stop_on_signals(), drain_s=args.drain_s)


def _serve(args: argparse.Namespace, spec: ModelSpec) -> int:
    if args.processes > 1:
        return _several(args)
    from stream_app import serve
    from stream_app.serving.limits import Limits
    from stream_app.serving.security import Security

    serve.run(
        bootstrap_servers=args.bootstrap_servers,
        topics=Topics.of(spec.name),
        registry_url=_registry_url(args, spec),
        listen=args.listen,
        share_port=args.share_port,
        reflect=args.reflection,
        limits=Limits(grace_s=args.drain_s),
        security=Security(
            tokens=args.tokens, certificate=args.tls_cert, key=args.tls_key, client_ca=args.tls_client_ca
        ),
        rest=args.rest,
        log_events=args.log_events,
        prometheus=args.prometheus,
    )
    return 0


def _monitor(args: argparse.Namespace, spec: ModelSpec) -> int:
    from stream_app import monitor

    return monitor.run(spec, bootstrap_servers=args.bootstrap_servers, prometheus=args.prometheus, view=args.view)


def _lag(args: argparse.Namespace, spec: ModelSpec) -> int:
    from stream_app import lag

    return lag.run(spec.name, bootstrap_servers=args.bootstrap_servers, as_json=args.json, watch_s=args.watch)


def _dead_letters(args: argparse.Namespace, spec: ModelSpec) -> int:
    return redrive.run(args, spec, operator.who())


def _reproduce(args: argparse.Namespace, spec: ModelSpec) -> int:
    from stream_app import reproduce

    return reproduce.run(spec, args.bootstrap_servers, _registry(args, spec), as_json=args.json)


def _produce(args: argparse.Namespace, spec: ModelSpec) -> int:
    from stream_app import feed
    from stream_app.topics import connect

    connect(args.bootstrap_servers)
    named = feed.Named(args.id, args.time, args.label, args.label_time, args.weight, args.key)
    return feed.run(spec, bootstrap_servers=args.bootstrap_servers, path=args.file, topic=args.topic, named=named)


def _up(args: argparse.Namespace, spec: ModelSpec) -> int:
    from stream_app import up

    return up.run(
        args.spec,
        spec,
        bootstrap_servers=args.bootstrap_servers,
        registry=args.registry,
        listen=args.listen,
        rest=args.rest,
        prometheus=args.prometheus,
        run_dir=args.run_dir,
        workers=args.workers,
        on_mismatch=args.on_mismatch,
        stuck_s=args.stuck_s,
    )


if __name__ == "__main__":
    sys.exit(main())
