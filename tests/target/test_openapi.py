"""docs/upload-target.openapi.yaml describes what the real store answers, all of it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from dockd.evidence import jws
from dockd.evidence.keys import SigningKey
from dockd.store.serve import Store
from dockd.target.conformance.probe import Probe, Reply, Subject
from dockd.target.conformance.suite import CHECKS
from tests.store.tus import QUICK
from tests.target.openapi import PAGE

Json = Mapping[str, Any]
COMMON = {"content-length", "content-type", "date", "server", "connection", "cache-control"}
"""Fields of HTTP itself, which no description names."""
CONTRACT = {"tus-resumable", "tus-version"}
"""Fields that tus puts into every answer."""


def resolved(value: Any) -> Any:
    """Follow references, to the bottom."""
    if isinstance(value, dict):
        if "$ref" in value:
            found: Any = PAGE
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            return resolved(found)
        return {key: resolved(inner) for key, inner in value.items()}
    return [resolved(inner) for inner in value] if isinstance(value, list) else value


def mistakes(value: Any, schema: Json, where: str) -> Iterator[str]:
    """Yield how a value differs from a schema, of the few words that the page uses."""
    kinds: dict[str, Any] = {"string": str, "integer": int, "object": dict, "array": list}
    if not isinstance(value, kinds[schema["type"]]):
        yield f"{where} is no {schema['type']}: {value!r}"
        return
    if not re.search(schema.get("pattern", ""), str(value), re.ASCII):
        yield f"{where} does not match {schema['pattern']}: {value!r}"
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f"{where} is too short"
    if isinstance(value, int) and value < schema.get("minimum", value):
        yield f"{where} is too small: {value}"
    if isinstance(value, dict):
        yield from (f"{where} lacks {name}" for name in schema["required"] if name not in value)
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from mistakes(inner, schema["properties"][name], f"{where}.{name}")
    for inner in value if isinstance(value, list) else ():
        yield from mistakes(inner, schema["items"], f"{where}[]")


def described(method: str, path: str, status: int) -> tuple[str, Json]:
    """Return what the page says of an answer, by its own status or the class of it."""
    for template, item in PAGE["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            responses = item[method.lower()]["responses"]
            key = str(status) if str(status) in responses else f"{status // 100}XX"
            return f"{method} {template} {key}", resolved(responses[key])
    raise AssertionError(f"the page does not know {method} {path}")


def faults(reply: Reply) -> Iterator[str]:
    """Yield how an answer differs from its description."""
    method, url = reply.request.split(" ", 1)
    name, answer = described(method, URL(url).path, reply.status)
    fields = {field.lower(): value for field, value in reply.headers.items()}
    headers = {field.lower(): header for field, header in answer.get("headers", {}).items()}
    for field, header in headers.items():
        if field in fields:
            kind = header["schema"]["type"]
            value = int(fields[field]) if kind == "integer" else fields[field]
            yield from mistakes(value, header["schema"], f"{name}: {field}")
        elif header.get("required"):
            yield f"{name}: {field} is missing"
    if reply.status < 300:
        strange = set(fields) - set(headers) - COMMON - CONTRACT
        yield from (f"{name}: {field} is not described" for field in strange)
    yield from _faults_of_content(reply, name, answer, fields.get("content-type", ""))


def _faults_of_content(reply: Reply, name: str, answer: Json, header: str) -> Iterator[str]:
    content, kind = answer.get("content", {}), header.partition(";")[0]
    if not reply.body or (reply.status >= 400 and not content):
        return
    if kind not in content:
        yield f"{name}: {kind} is not described"
        return
    text = reply.body.decode()
    value = json.loads(text) if kind == "application/json" else text
    found = list(mistakes(value, content[kind]["schema"], name))
    yield from found
    if kind == "application/jwt" and not found:
        claims = json.loads(jws.unverified_payload(text))
        yield from mistakes(claims, resolved({"$ref": "#/components/schemas/ReceiptClaims"}), name)


class Recorder(Probe):
    """Keeps every answer."""

    async def _ask(self, *arguments: Any, **named: Any) -> Reply:
        reply = await super()._ask(*arguments, **named)
        self.replies.append(reply)
        return reply

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.replies: list[Reply] = []


async def test_every_answer_of_the_store_is_as_described(tmp_path: Path) -> None:
    """Whatever the checks of a target make it answer, refusals included."""
    key = SigningKey(Ed25519PrivateKey.generate())
    async with (
        Store.running(tmp_path / "store", settings=QUICK) as store,
        Recorder(Subject(store.url, key, patience_s=20)) as probe,
    ):
        offered = (await probe.options()).headers["Tus-Extension"]
        probe.offers = frozenset(offered.split(","))
        for check in CHECKS:
            await check.outcome(probe)
        for url in list(probe.unfinished)[:1]:
            await probe.delete(url)
    assert [fault for reply in probe.replies for fault in faults(reply)] == []
    seen = {
        described(*_method_and_path(reply), reply.status)[0].replace("{id}", "…")
        for reply in probe.replies
    }
    assert seen >= {
        "OPTIONS /files/ 204", "POST /files/ 201", "POST /files/ 460", "HEAD /files/… 200",
        "HEAD /files/… 404", "PATCH /files/… 204", "PATCH /files/… 404", "PATCH /files/… 409",
        "PATCH /files/… 423", "PATCH /files/… 460", "PATCH /files/… 4XX", "DELETE /files/… 403",
        "DELETE /files/… 204", "GET /files/… 405", "GET /files/…/receipt 200",
        "GET /files/…/receipt 404", "GET /files/…/receipt 409", "GET /files/receipt-keys 200",
    }  # fmt: skip


def _method_and_path(reply: Reply) -> tuple[str, str]:
    method, url = reply.request.split(" ", 1)
    return method, URL(url).path


@pytest.mark.parametrize(
    ("request_", "status", "headers", "body", "word"),
    [
        ("HEAD http://s/files/1", 200, {"Upload-Offset": "1"}, b"", "upload-length is missing"),
        ("PATCH http://s/files/1", 204, {"Upload-Offset": "-1"}, b"", "too small"),
        ("POST http://s/files/", 201, {"Location": "/1", "X-New": "1"}, b"", "x-new is not described"),
        ("GET http://s/files/1/receipt", 200, {"Content-Type": "text/html"}, b"x", "text/html is not"),
        ("GET http://s/files/1/receipt", 409, {"Content-Type": "application/json"}, b"{}", "lacks error"),
        ("GET http://s/files/1/receipt", 200, {"Content-Type": "application/jwt"}, b"x", "does not match"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_seen(
    request_: str, status: int, headers: dict[str, str], body: bytes, word: str
) -> None:
    found = list(faults(Reply(request_, status, headers, body)))
    assert any(word in fault for fault in found), found


def test_every_reference_leads_somewhere() -> None:
    """And every clause that is named is one of the contract."""
    text = json.dumps(resolved(PAGE), ensure_ascii=False)
    assert "$ref" not in text
    contract = (Path(__file__).parents[2] / "docs/upload-target.md").read_text(encoding="utf-8")
    for clause in set(re.findall(r"§\d+\.\d+", text)):
        assert f"**{clause}**" in contract
