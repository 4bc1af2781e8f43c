"""A tus endpoint that takes bytes and forgets them, so that what is measured is the sender.

One blocking thread for each connection, one buffer, no copy beyond the kernel's. It speaks just enough
tus for one upload after the other: OPTIONS, POST without a body, PATCH. Run as a process of its own:
``python -m tests.bench.endpoint [CERTIFICATE KEY]``; it prints its port.
"""

import socket
import ssl
import sys
import threading

_BUFFER_BYTES = 1 << 20
_TUS = b"Tus-Resumable: 1.0.0\r\n"


def main(files: list[str]) -> None:
    """Listen on a port of loopback until the process is ended."""
    context = None
    if files:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*files)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sys.stdout.write(f"{server.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, context), daemon=True).start()


def _serve(connection: socket.socket, context: ssl.SSLContext | None) -> None:
    if context is not None:
        connection = context.wrap_socket(connection, server_side=True)
    buffer = bytearray(_BUFFER_BYTES)
    with connection:
        while (request := _head(connection, buffer)) is not None:
            connection.sendall(_answer(connection, buffer, *request))


def _head(connection: socket.socket, buffer: bytearray) -> tuple[str, dict[str, str], int] | None:
    """Read a request's head; return its method, its fields, and the bytes of its body read already."""
    have = 0
    while (end := buffer.find(b"\r\n\r\n", 0, have)) < 0:
        count = connection.recv_into(memoryview(buffer)[have:])
        if count == 0:
            return None
        have += count
    line, *lines = buffer[:end].decode("latin-1").split("\r\n")
    fields = (field.partition(":") for field in lines)
    return (
        line.split(" ")[0],
        {name.lower(): value.strip() for name, _, value in fields},
        have - end - 4,
    )


def _answer(
    connection: socket.socket, buffer: bytearray, method: str, fields: dict[str, str], have: int
) -> bytes:
    length = int(fields.get("content-length", 0))
    left = length - have
    while left > 0:
        count = connection.recv_into(buffer, min(left, _BUFFER_BYTES))
        if count == 0:
            raise ConnectionError(f"the sender went away with {left} bytes to come")
        left -= count
    match method:
        case "OPTIONS":
            status, more = "204 No Content", b"Tus-Version: 1.0.0\r\nTus-Extension: creation\r\n"
        case "POST":
            status, more = "201 Created", b"Location: /files/1\r\nContent-Length: 0\r\n"
        case _:
            offset = int(fields.get("upload-offset", 0)) + length
            status, more = "204 No Content", b"Upload-Offset: %d\r\n" % offset
    return b"HTTP/1.1 %s\r\n%s%s\r\n" % (status.encode(), _TUS, more)


if __name__ == "__main__":
    main(sys.argv[1:])
