"""kafka-python's clients, made so that they end whole: bootstrap servers -> [client] -> topics, produce, read back.

Three things kafka-python 3.0 leaves open: a constructor that fails, because the broker hangs, leaves a thread and
three files behind at every attempt; a connection that fails, or is given up, leaves its socket; so does a client
that is closed while it writes. A server that waits for its broker would run out of files within the hour.
"""

import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket

from stream_app.errors import BrokerError

T = TypeVar("T")


def admin(bootstrap_servers: str, **config: Any) -> KafkaAdminClient:
    """An admin client.

    Args:
        bootstrap_servers: ``host:port``, several with commas.
        config: as ``kafka.KafkaAdminClient`` documents it.

    Raises:
        KafkaError: no broker answers within ``bootstrap_timeout_ms``.
    """
    return _whole(KafkaAdminClient, bootstrap_servers, config)


def consumer(bootstrap_servers: str, **config: Any) -> KafkaConsumer:
    """A consumer that commits nothing on its own and creates no topic; otherwise as ``admin``."""
    return _whole(KafkaConsumer, bootstrap_servers, {"enable_auto_commit": False} | config)


def producer(bootstrap_servers: str, **config: Any) -> KafkaProducer:
    """An idempotent producer that creates no topic; otherwise as ``admin``."""
    return _whole(KafkaProducer, bootstrap_servers, config)


@contextmanager
def broker_errors(bootstrap_servers: str) -> Iterator[None]:
    """What kafka-python raises inside, as ours.

    Raises:
        BrokerError: it raised; names the servers.
    """
    try:
        yield
    except KafkaError as error:
        raise BrokerError(f"broker {bootstrap_servers!r}: {error}, wanted an answer") from error


def _whole(kind: Callable[..., T], bootstrap_servers: str, config: dict[str, Any]) -> T:
    """The client, or nothing of it."""
    begun: list[KafkaNetClient] = []

    def begin(**settings: Any) -> KafkaNetClient:
        client = KafkaNetClient(**settings)
        # kafka-python 3.0 does not hand the option of this name on, and asks the broker to create what is missing.
        client.cluster.config["allow_auto_create_topics"] = False
        begun.append(client)
        return client

    try:
        return kind(
            bootstrap_servers=bootstrap_servers.split(","),
            kafka_client=begin,
            proxy_url=f"{_DIRECT}://",
            selector=_ClosingSelector,
            **config,
        )
    except BaseException:
        for client in begun:
            client.close()
        raise


_DIRECT = "stream-app-direct"
"""kafka-python finds the class that connects by the scheme of its proxy."""


class _ClosingSocket(KafkaNetSocket):  # type: ignore[misc]
    """Connects without a proxy, or closes the socket."""

    SCHEMES = (_DIRECT,)

    async def sock_connect(self, net: Any, sock: socket.socket, *address: Any, **limits: Any) -> socket.socket:
        try:
            connected: socket.socket = await super().sock_connect(net, sock, *address, **limits)
        except BaseException:  # GeneratorExit too: the client was closed meanwhile
            sock.close()
            raise
        return connected


class _ClosingSelector(selectors.DefaultSelector):
    """Closes, when the client is closed, the sockets that were waited for last and that nobody closed."""

    def __init__(self) -> None:
        super().__init__()
        self._let_go: set[Any] = set()

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        self._let_go.add(fileobj)
        return super().unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._let_go.clear()  # the loop goes on: whoever needs them has them
        return super().select(timeout)

    def close(self) -> None:
        for fileobj in self._let_go:
            fileobj.close()
        super().close()
