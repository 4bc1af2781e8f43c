"""``dockd receipt``: verify a store's receipt, away from dock and store."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dockd.core.errors import ReceiptInvalidError
from dockd.core.model import ReceiptClaims
from dockd.core.timestamps import to_rfc3339
from dockd.evidence.keys import load_verifying_key
from dockd.evidence.receipts import read_receipt

app = typer.Typer(no_args_is_help=True)

_LARGEST_FILE_BYTES = 64 * 1024


@app.callback()
def receipts() -> None:
    """Receipts of a store."""


@app.command()
def verify(
    receipt: Annotated[
        Path, typer.Argument(metavar="FILE", help="The receipt.", exists=True, dir_okay=False)
    ],
    key: Annotated[Path, typer.Option(help="The store's public receipt key, PEM.")],
    store_id: Annotated[
        str | None, typer.Option(help="The store that must have issued it.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="The digest it must cover, hex.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="The recording it must cover.", exists=True, dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a receipt's signature and claims, and print what it proves."""
    with receipt.open("rb") as opened:
        text = opened.read(_LARGEST_FILE_BYTES).decode("ascii", "backslashreplace").strip()
    trusted = load_verifying_key(key)
    try:
        claims = read_receipt(text, trusted)
        if store_id is not None:
            _require("store", claims.issuer, store_id)
        if sha256 is not None:
            _require("digest", claims.sha256, sha256.lower())
        if file is not None:
            _require("size", claims.size_bytes, file.stat().st_size)
            with file.open("rb") as recording:
                _require(
                    "digest", claims.sha256, hashlib.file_digest(recording, "sha256").hexdigest()
                )
    except ReceiptInvalidError as error:
        if not as_json:
            raise
        print(json.dumps({"valid": False, "error": str(error)}, indent=2))
        raise typer.Exit(1) from error
    _print(claims, as_json=as_json)


def _require(what: str, found: str | int, wanted: str | int) -> None:
    if found != wanted:
        raise ReceiptInvalidError(f"the receipt's {what} is {found}, not {wanted}")


def _print(claims: ReceiptClaims, *, as_json: bool) -> None:
    fields: dict[str, Any] = {
        "store": claims.issuer,
        "confirmed_by": claims.confirm.value,
        "issued_at": to_rfc3339(claims.issued_at),
        "receipt": claims.receipt_id,
        "upload": claims.upload_id,
        "sha256": claims.sha256,
        "size_bytes": claims.size_bytes,
        "dock": claims.dock,
        "camera": claims.camera,
        "visit": claims.visit,
        "custody_head": claims.custody_head,
    }
    if as_json:
        print(json.dumps({"valid": True, **fields}, indent=2))
        return
    print("valid")
    for name, value in fields.items():
        print(f"{name:13} {json.dumps(value) if isinstance(value, str) else value}")
