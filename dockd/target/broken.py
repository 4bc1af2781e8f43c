"""What kept a request from its answer: the error that it stands for, in a person's words."""

import errno
import ssl

import aiohttp

from dockd.core.errors import AdministrativeRefusalError, TargetError, TargetUnavailableError
from dockd.target.clock import ClockWatch, system_now
from dockd.target.headers import retry_after_s

# X509_V_ERR_… (openssl/x509_vfy.h), which the ssl module has no names for.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_OTHER_NAME = (62, 64)

_ABOUT_OUR_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""Alerts by which a server refuses the client's certificate (RFC 8446 §6.2)."""

_DEEPEST = 8
_HUNG_UP = (None, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE)
_LIFTED_BY_A_PERSON = (401, 402, 403, 407)


def broken(
    request: str, error: BaseException, clock: ClockWatch, *, secure: bool = False
) -> TargetError:
    """Return the error for a request that had no answer; ``request`` names it.

    ``secure`` says that it went over TLS, whose servers do not always say why they hang up.
    """
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(request, error)
    tls = _tls_error(error)
    if tls is not None and _is_about_our_certificate(tls):
        return AdministrativeRefusalError(
            f"{request}: the store refuses this dock's certificate: {tls.reason}; {clock.words()}"
        )
    words = _cause(error, tls, clock)
    if secure and tls is None and _hung_up(error):
        words += " (as some servers do that refuse the dock's certificate)"
    return TargetUnavailableError(f"{request}: {words}")


def _refused_by_proxy(request: str, error: aiohttp.ClientHttpProxyError) -> TargetError:
    words = f"{request}: the proxy answers {error.status} {error.message}".rstrip()
    if error.status == 407:
        words += "; it wants another user or password (target.proxy, target.proxy_password_file)"
    administrative = error.status in _LIFTED_BY_A_PERSON
    kind = AdministrativeRefusalError if administrative else TargetUnavailableError
    wait_s = retry_after_s(error.headers or {}, system_now())
    return kind(words, status=error.status, retry_after_s=wait_s)


def _hung_up(error: BaseException) -> bool:
    if isinstance(error, aiohttp.ClientOSError):
        return error.errno in _HUNG_UP and not isinstance(error, aiohttp.ClientConnectorDNSError)
    return isinstance(error, aiohttp.ServerDisconnectedError)


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error at the bottom of what aiohttp makes of it."""
    for _ in range(_DEEPEST):  # causes may go in circles
        # Errors of aiohttp's own that count as SSLError have none of its attributes.
        if isinstance(error, ssl.SSLError) and not isinstance(error, aiohttp.ClientError):
            return error
        error = error.__cause__ if error is not None else None
    return None


def _is_about_our_certificate(error: ssl.SSLError) -> bool:
    reason = error.reason or ""
    return "ALERT" in reason and any(word in reason for word in _ABOUT_OUR_CERTIFICATE)


def _cause(error: BaseException, tls: ssl.SSLError | None, clock: ClockWatch) -> str:
    if isinstance(tls, ssl.SSLCertVerificationError):
        words = _why_not_accepted(tls, clock)
        return f"the server's certificate is not accepted: {words}"
    if tls is not None:
        return f"TLS failed: {tls}"
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} is not known (DNS): {error.strerror or error}"
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time"
        case aiohttp.SocketTimeoutError():
            return "no answer in time"
        case aiohttp.ClientProxyConnectionError():
            return f"no connection to the proxy: {error.strerror or error}"
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.strerror or 'the server hung up at once'}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return f"the answer was cut short: {error}"
        case aiohttp.ClientOSError() if error.strerror:
            return f"the connection broke: {error.strerror}"
        case TimeoutError():
            return "no whole answer in time"
    return f"the connection broke: {str(error) or type(error).__name__}"


def _why_not_accepted(error: ssl.SSLCertVerificationError, clock: ClockWatch) -> str:
    code, words = error.verify_code, error.verify_message
    if code == _EXPIRED:
        return f"it has expired, or a clock is wrong: {clock.words()}"
    if code == _NOT_YET_VALID:
        return f"it is not valid yet, or a clock is wrong: {clock.words()}"
    if code in _UNKNOWN_AUTHORITY:
        return f"no authority that this dock trusts has signed it ({words})"
    if code in _OTHER_NAME:
        return f"it is for another name ({words})"
    return words
