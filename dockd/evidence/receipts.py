"""Receipts: the store's signed statement that it holds, durably, these bytes.

Of a target that signs nothing, the dock itself makes the statement once it has read the bytes back, and
says so in the claim ``confirm``. Which of the two counts is pinned; one never stands in for the other.

A receipt is a compact JWS (RFC 7515) of type ``dockd-receipt+jwt`` whose payload is a JWT claims set
(RFC 7519). Claims that are not known are ignored (RFC 7519 section 4); those listed here must all
be there and well formed. docs/upload-target.md is the contract for other stores.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeGuard, TypeVar

from dockd.core.errors import ReceiptInvalidError, ReceiptKeyUnknownError
from dockd.core.model import Confirm, ReceiptClaims
from dockd.core.wipe_gate import CLOCK_LEEWAY
from dockd.evidence import jws as compact
from dockd.evidence.keys import SigningKey, VerifyingKey
from dockd.evidence.succession import follow

TYPE = "dockd-receipt+jwt"

_LARGEST_RECEIPT_CHARS = 16 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LAST_SECOND = int(datetime.max.replace(tzinfo=UTC).timestamp())

T = TypeVar("T")


def sign_receipt(key: SigningKey, claims: ReceiptClaims) -> str:
    """Return the receipt as a compact JWS. ``issued_at`` keeps whole seconds (NumericDate)."""
    payload = {
        "iss": claims.issuer,
        "iat": int(claims.issued_at.timestamp()),
        "jti": claims.receipt_id,
        "sub": claims.upload_id,
        "sha256": claims.sha256,
        "size": claims.size_bytes,
        "dock": claims.dock,
        "camera": claims.camera,
        "visit": claims.visit,
        "custody_head": claims.custody_head,
    }
    if claims.confirm is not Confirm.RECEIPT:
        payload["confirm"] = claims.confirm.value
    return compact.sign(key, TYPE, json.dumps(payload, separators=(",", ":")).encode())


def read_receipt(text: str, key: VerifyingKey) -> ReceiptClaims:
    """Return what a receipt signed by this key states, whoever it says has issued it.

    Raises :class:`ReceiptInvalidError` unless type, algorithm, key, signature and all claims are right.
    """
    if len(text) > _LARGEST_RECEIPT_CHARS:
        raise ReceiptInvalidError(f"the receipt has {len(text)} characters, far too many")
    try:
        payload = compact.verify(text, TYPE, key)
        return _claims(json.loads(payload))
    except RecursionError as error:
        raise ReceiptInvalidError("the receipt is nested too deeply") from error
    except ValueError as error:
        raise ReceiptInvalidError(f"the receipt does not verify: {error}") from error


def stated_claims(text: str) -> ReceiptClaims:
    """Return what a receipt says, without asking who signed it; its form must be right all the same.

    Proves nothing. Raises :class:`ReceiptInvalidError`.
    """
    try:
        return _claims(json.loads(compact.stated_payload(text, TYPE)))
    except (ValueError, RecursionError) as error:
        raise ReceiptInvalidError(f"the receipt is not well formed: {error}") from error


class ReceiptVerifier:
    """Verifies receipts against what is pinned: the store's id, what confirms, and whose key signs.

    ``key`` is the pinned key. Its successors count as well, as far as ``statements`` prove them.
    """

    def __init__(
        self,
        store_id: str,
        key: VerifyingKey,
        confirm: Confirm = Confirm.RECEIPT,
        statements: Sequence[str] = (),
    ) -> None:
        """Build. Raises :class:`ReceiptInvalidError` for unsound statements."""
        self.store_id = store_id
        self.key = key
        self.confirm = confirm
        self.statements: tuple[str, ...] = ()
        self._keys = {key.key_id: key}
        self.learn(statements)

    @property
    def newest(self) -> VerifyingKey:
        """The pinned key's last known successor, or itself."""
        return list(self._keys.values())[-1]

    def learn(self, statements: Sequence[str]) -> bool:
        """Take these statements about successors instead of those before; return whether that adds keys.

        Raises :class:`ReceiptInvalidError` for unsound ones, which change nothing. A key that was proved
        once stays: a store that was restored from a backup may have forgotten it.
        """
        if self.confirm is not Confirm.RECEIPT:
            return False
        chain = follow(statements, self.store_id, self.key)
        new = {key.key_id: key for key in chain if key.key_id not in self._keys}
        if new:
            self._keys = self._keys | new
            self.statements = tuple(statements)
        return bool(new)

    def verify(self, jws: str) -> ReceiptClaims:
        """Return what a receipt of the pinned store states.

        Raises :class:`ReceiptInvalidError`, and of that ReceiptKeyUnknownError when it is signed with a
        key that is not known here: there may be a statement about it.
        """
        named = compact.named_key(jws)
        try:
            claims = read_receipt(jws, self._keys.get(named or "", self.key))
        except ReceiptInvalidError as error:
            if named is not None and named not in self._keys:
                raise ReceiptKeyUnknownError(str(error)) from error
            raise
        if claims.confirm is not self.confirm:
            raise ReceiptInvalidError(
                f"the receipt is by {claims.confirm}, and only {self.confirm} is accepted here"
            )
        if claims.issuer != self.store_id:
            raise ReceiptInvalidError(
                f"the receipt is from store {claims.issuer!r}, not {self.store_id!r}"
            )
        return claims


def prove(
    claims: ReceiptClaims, *, dock: str, camera: str, sha256: str, size_bytes: int, now: datetime
) -> None:
    """Check that a verified receipt speaks of exactly these bytes of this camera.

    Raises :class:`ReceiptInvalidError` that names the first difference (INV-1).
    """
    for what, found, wanted in (
        ("digest", claims.sha256, sha256),
        ("size", claims.size_bytes, size_bytes),
        ("dock", claims.dock, dock),
        ("camera", claims.camera, camera),
    ):
        if found != wanted:
            raise ReceiptInvalidError(f"the receipt's {what} is {found!r}, not {wanted!r}")
    if claims.issued_at > now + CLOCK_LEEWAY:
        raise ReceiptInvalidError(
            f"the receipt is from the future: the store's clock said {claims.issued_at}, and this"
            f" dock's clock says {now}; set the one that is wrong"
        )


def _claims(payload: object) -> ReceiptClaims:
    if not isinstance(payload, dict):
        raise ValueError("its payload is not a JSON object")  # noqa: TRY004 (a fault of the data)
    return ReceiptClaims(
        issuer=_claim(payload, "iss", _is_name),
        issued_at=datetime.fromtimestamp(_claim(payload, "iat", _is_time), UTC),
        receipt_id=_claim(payload, "jti", _is_name),
        upload_id=_claim(payload, "sub", _is_name),
        sha256=_claim(payload, "sha256", _is_sha256),
        size_bytes=_claim(payload, "size", _is_size),
        dock=_claim(payload, "dock", _is_text),
        camera=_claim(payload, "camera", _is_text),
        visit=_claim(payload, "visit", _is_text),
        custody_head=_claim(payload, "custody_head", _is_text),
        confirm=_confirm(payload),
    )


def _confirm(payload: dict[str, object]) -> Confirm:
    """Return what the proof rests on: the store's word, unless the receipt says otherwise."""
    if "confirm" not in payload:
        return Confirm.RECEIPT
    if payload["confirm"] != Confirm.READBACK:
        raise ValueError("its claim 'confirm' is not well formed")
    return Confirm.READBACK


def _claim(
    payload: dict[str, object], name: str, well_formed: Callable[[object], TypeGuard[T]]
) -> T:
    value = payload.get(name)
    if not well_formed(value):
        raise ValueError(f"its claim {name!r} is missing or not well formed")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value != ""


def _is_sha256(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: object) -> TypeGuard[int]:
    return _is_size(value) and value <= _LAST_SECOND
