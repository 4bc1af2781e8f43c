"""Draws docs/upload-target.openapi.yaml: the contract's requests and answers, for machines.

docs/upload-target.md is the contract; its clauses are named here. A test holds the real store to it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]

OFFSET_BYTES = "application/offset+octet-stream"
JWS = r"^[\w-]+\.[\w-]+\.[\w-]+$"
BASE64 = "[A-Za-z0-9+/]+={0,2}"


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _header(description: str, schema: Json, *, required: bool = False) -> Json:
    return {"description": description, "required": required, "schema": schema}


def _request_header(name: str, description: str, schema: Json, *, required: bool = False) -> Json:
    return {"name": name, "in": "header", **_header(description, schema, required=required)}


def _answer(description: str, *headers: str, content: Json | None = None) -> Json:
    fields = {name: _ref("headers", name) for name in headers}
    answer: dict[str, Any] = {"description": description}
    if fields:
        answer["headers"] = fields
    if content is not None:
        answer["content"] = content
    return answer


SIZE = {"type": "integer", "minimum": 0}
TEXT = {"type": "string"}
REFUSED = {"4XX": _ref("responses", "Refused"), "5XX": _ref("responses", "Fault")}
GONE = _answer("Not known, expired, or refused (§4.9).")

HEADERS: dict[str, Json] = {
    "Tus-Version": _header(
        "Holds 1.0.0 (§2.1).", {"type": "string", "pattern": r"(^|,)1\.0\.0(,|$)"}, required=True
    ),
    "Tus-Extension": _header(
        "What is offered (§2.1).",
        {"type": "string", "pattern": "(^|,)creation(,|$)"},
        required=True,
    ),
    "Tus-Checksum-Algorithm": _header(
        "Holds sha256 where checksum is offered.", {"type": "string", "pattern": "(^|,)sha256(,|$)"}
    ),
    "Tus-Max-Size": _header("The largest Upload-Length that is taken.", SIZE),
    "Dockd-Store": _header("The id of the store; proves nothing.", TEXT),
    "Dockd-Durability": _header(
        "What survives a power cut (§2.2).",
        {"type": "string", "pattern": "^(offset|receipt)(, *(offset|receipt))?$"},
    ),
    "Location": _header(
        "The upload, on the same origin (§1.2).",
        {"type": "string", "format": "uri-reference", "pattern": "."},
        required=True,
    ),
    "Upload-Offset": _header("Bytes that are held, durably (§4.6).", SIZE, required=True),
    "Upload-Offset-If-Any": _header("Bytes that are held; absent for none (§3.1).", SIZE),
    "Upload-Length": _header("Bytes that the upload will have.", SIZE, required=True),
    "Upload-Metadata": _header("As it came (§3.2).", TEXT),
    "Upload-Expires": _header(
        "When an unfinished upload is dropped (§4.8), an HTTP date.",
        {"type": "string", "pattern": r"^\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT$"},
    ),
    "Dockd-Receipt": _header(
        "The receipt, when it is ready at once (§5.4).", {"type": "string", "pattern": JWS}
    ),
    "Retry-After": _header(
        "When to ask again: seconds, or an HTTP date.",
        {"type": "string", "pattern": "."},
        required=True,
    ),
}

RESPONSES: dict[str, Json] = {
    "Refused": {
        "description": "Not taken; docs/upload-target.md, part 7, says what the dock makes of each status.",
        "content": {"text/plain": {"schema": TEXT}},
    },
    "Fault": {
        "description": "The target cannot now. 503: busy; 507: full.",
        "headers": {"Retry-After": {"description": "When to try again.", "schema": TEXT}},
        "content": {"text/plain": {"schema": TEXT}},
    },
}

SCHEMAS: dict[str, Json] = {
    "Receipt": {
        "type": "string",
        "pattern": JWS,
        "description": "Compact JWS (RFC 7515), alg EdDSA, typ dockd-receipt+jwt, kid the RFC 7638 "
        "thumbprint of the signing key. Its payload is ReceiptClaims (§5.1).",
    },
    "ReceiptClaims": {
        "type": "object",
        "required": [
            "iss",
            "iat",
            "jti",
            "sub",
            "sha256",
            "size",
            "dock",
            "camera",
            "visit",
            "custody_head",
        ],
        "properties": {
            "iss": {"type": "string", "minLength": 1, "description": "Id of the store."},
            "iat": {
                "type": "integer",
                "minimum": 0,
                "description": "When it was signed, seconds since 1970.",
            },
            "jti": {
                "type": "string",
                "minLength": 1,
                "description": "Id of the receipt; no two uploads share one.",
            },
            "sub": {"type": "string", "minLength": 1, "description": "Id of the upload."},
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "size": SIZE,
            "dock": TEXT,
            "camera": TEXT,
            "visit": TEXT,
            "custody_head": TEXT,
        },
    },
    "Statements": {
        "type": "object",
        "required": ["statements"],
        "properties": {
            "statements": {"type": "array", "items": {"type": "string", "pattern": JWS}}
        },
    },
    "Refusal": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": TEXT,
            "missing": {
                "type": "array",
                "items": TEXT,
                "description": "What a manifest lists and is not held (§5.5).",
            },
        },
    },
}

TUS = _request_header(
    "Tus-Resumable", "The version of tus.", {"type": "string", "const": "1.0.0"}, required=True
)
CHECKSUM = _request_header(
    "Upload-Checksum", "Of this body (§4.3).", {"type": "string", "pattern": f"^sha256 {BASE64}$"}
)
DIGEST = _request_header(
    "Repr-Digest",
    "Of the whole recording (§4.4), RFC 9530.",
    {"type": "string", "pattern": f"sha-256=:{BASE64}:"},
)
BODY = {OFFSET_BYTES: {"schema": {"type": "string", "format": "binary"}}}

COLLECTION = {
    "options": {
        "operationId": "discover",
        "summary": "What the target can do (§2)",
        "responses": {
            status: _answer(
                "What is offered.",
                "Tus-Version",
                "Tus-Extension",
                "Tus-Checksum-Algorithm",
                "Tus-Max-Size",
                "Dockd-Store",
                "Dockd-Durability",
            )
            for status in ("200", "204")
        },
    },
    "post": {
        "operationId": "create",
        "summary": "Create an upload, or find the one of the same key (§3)",
        "parameters": [
            TUS,
            _request_header("Upload-Length", "Bytes of the recording.", SIZE, required=True),
            _request_header("Upload-Metadata", "Pairs of key and base64, in part 3.", TEXT),
            _request_header(
                "Idempotency-Key",
                "Makes creation repeatable (§3.3).",
                {"type": "string", "maxLength": 255},
            ),
            CHECKSUM,
            DIGEST,
        ],
        "requestBody": {"description": "The whole recording (§3.4).", "content": BODY},
        "responses": {
            "201": {
                "description": "The upload is there.",
                "headers": {
                    "Location": _ref("headers", "Location"),
                    "Upload-Offset": _ref("headers", "Upload-Offset-If-Any"),
                    "Upload-Expires": _ref("headers", "Upload-Expires"),
                    "Dockd-Receipt": _ref("headers", "Dockd-Receipt"),
                },
            },
            "460": _answer("The body is not what Upload-Checksum says; nothing is kept (§4.3)."),
            **REFUSED,
        },
    },
}

RECEIPT_KEYS = {
    "get": {
        "operationId": "receiptKeys",
        "summary": "The receipt keys that came after each other (§8.3)",
        "responses": {
            "200": _answer(
                "A statement for each change, oldest first.",
                content={"application/json": {"schema": _ref("schemas", "Statements")}},
            ),
            "404": _answer("The key never changes."),
            **REFUSED,
        },
    }
}

UPLOAD = {
    "head": {
        "operationId": "offset",
        "summary": "How much is held (§4.1)",
        "parameters": [TUS],
        "responses": {
            "200": _answer(
                "The state.", "Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Expires"
            ),
            "404": GONE,
            "410": GONE,
            **REFUSED,
        },
    },
    "patch": {
        "operationId": "append",
        "summary": "More bytes (§4)",
        "parameters": [
            TUS,
            _request_header("Upload-Offset", "Where they begin.", SIZE, required=True),
            CHECKSUM,
            DIGEST,
        ],
        "requestBody": {"required": True, "content": BODY},
        "responses": {
            "204": _answer(
                "They are held, durably.", "Upload-Offset", "Upload-Expires", "Dockd-Receipt"
            ),
            "404": GONE,
            "409": _answer("The upload is elsewhere; nothing is kept (§4.2)."),
            "410": GONE,
            "423": _answer("Another request writes (§4.7)."),
            "460": _answer("The body is not what Upload-Checksum says; none is kept (§4.3)."),
            **REFUSED,
        },
    },
    "get": {
        "operationId": "content",
        "summary": "The bytes, for docks that confirm by readback (§9.1); a target with receipts need not",
        "responses": {
            "200": _answer(
                "Exactly the bytes that are held.",
                content={"*/*": {"schema": {"type": "string", "format": "binary"}}},
            ),
            "404": GONE,
            "405": _answer("Not offered."),
            **REFUSED,
        },
    },
    "delete": {
        "operationId": "terminate",
        "summary": "Drop an unfinished upload; docks never ask for it",
        "parameters": [TUS],
        "responses": {
            "204": _answer("It is dropped."),
            "403": _answer("It is finished footage (§8.2)."),
            **REFUSED,
        },
    },
}

RECEIPT = {
    "get": {
        "operationId": "receipt",
        "summary": "The receipt (§5.3)",
        "responses": {
            "200": _answer(
                "The receipt.", content={"application/jwt": {"schema": _ref("schemas", "Receipt")}}
            ),
            "202": _answer("All bytes are here and being checked.", "Retry-After"),
            "404": _answer("No such upload, or not all bytes are here."),
            "409": _answer(
                "Refused; the bytes are kept aside, for people.",
                content={"application/json": {"schema": _ref("schemas", "Refusal")}},
            ),
            "410": GONE,
            **REFUSED,
        },
    }
}

ID = {"name": "id", "in": "path", "required": True, "schema": TEXT}
PAGE: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "Upload target of docks",
        "version": "1",
        "summary": "What a server must do so that docks can send footage to it and erase cameras on its word",
        "description": "upload-target.md is the contract, and its clauses (§) are named here. The addresses "
        "below are those of `dockd store`; a target may have others, and names them in Location.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "servers": [{"url": "https://store.example"}],
    "paths": {
        "/files/": COLLECTION,
        "/files/receipt-keys": RECEIPT_KEYS,
        "/files/{id}": {"parameters": [ID], **UPLOAD},
        "/files/{id}/receipt": {"parameters": [ID], **RECEIPT},
    },
    "security": [{"dock": []}, {}],
    "components": {
        "securitySchemes": {"dock": {"type": "mutualTLS"}},
        "headers": HEADERS,
        "responses": RESPONSES,
        "schemas": SCHEMAS,
    },
}


def openapi_page() -> str:
    """Return the page: YAML whose texts are all written as JSON strings, which YAML takes as they are."""
    note = "# Drawn from the code by `make docs`; changes made here are lost.\n"
    return note + "".join(f"{line}\n" for line in _lines(PAGE))


def _lines(value: object, indent: str = "") -> Iterator[str]:
    match value:
        case dict() if value:
            for key, inner in value.items():
                name = key if key.replace("-", "").isalpha() else json.dumps(key)
                yield from _entry(f"{indent}{name}:", inner, indent)
        case list() if value:
            for inner in value:
                first, *rest = _lines(inner, indent + "  ")
                yield f"{indent}- {first.strip()}"
                yield from rest
        case _:
            yield indent + json.dumps(value, ensure_ascii=False)


def _entry(name: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield name
        yield from _lines(value, indent + "  ")
    else:
        yield f"{name} {json.dumps(value, ensure_ascii=False)}"
