"""The client's side of TLS: at least 1.2, the peer's name and chain always checked (RFC 9110 §4.3.4)."""

import ssl

from dockd.core.errors import KeyFileError
from dockd.evidence.certificates import check_identity, load_certificates
from dockd.target.connection import Connection


class LateReadingObject(ssl.SSLObject):
    """A TLS connection that can still be read after the event loop has let go of it."""

    incoming: ssl.MemoryBIO

    def read_late(self, raw: bytes) -> bytes:
        """Decrypt what arrived after the loop's last read; raises SSLError for the peer's alert."""
        self.incoming.write(raw)
        text = bytearray()
        try:
            while piece := self.read():
                text += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        return bytes(text)


class _Context(ssl.SSLContext):
    """Hands each connection the buffer that asyncio feeds it through."""

    sslobject_class = LateReadingObject

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a connection."""
        wrapped = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(wrapped, LateReadingObject):
            wrapped.incoming = incoming
        return wrapped


def client_context(connection: Connection) -> ssl.SSLContext:
    """Return whom to trust and as whom to appear, from the files as they are now. Blocking.

    Raises :class:`~dockd.core.errors.KeyFileError`, which names the file.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    ca_file, certificate = connection.ca_file, connection.certificate
    try:
        if ca_file is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            load_certificates(ca_file)
            context.load_verify_locations(ca_file)
        if certificate is not None and connection.private_key is not None:
            check_identity(certificate, connection.private_key)
            context.load_cert_chain(certificate, connection.private_key)
    except OSError as error:  # which SSLError is
        files = ", ".join(str(file) for file in (ca_file, certificate) if file is not None)
        raise KeyFileError(f"{files}: not usable for TLS: {error}") from error
    return context
