"""What actually crosses the wire: a TCP relay that counts bytes."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """Forwards connections to a server and counts what its clients send."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = [self._listener]
        self.bytes_sent = 0
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_counted: bool) -> None:
        with contextlib.suppress(OSError):  # either side hung up
            while chunk := source.recv(65536):
                if is_counted:
                    with self._lock:
                        self.bytes_sent += len(chunk)
                sink.sendall(chunk)
        sink.close()

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


@contextlib.contextmanager
def relay_to(address: str) -> Iterator[Relay]:
    """A relay before the server at `host:port`."""
    host, _, port = address.rpartition(":")
    relay = Relay(host.removeprefix("http://"), int(port))
    try:
        yield relay
    finally:
        relay.close()
