"""Checksum files beside recordings: which belongs to which, and what it says."""

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.evidence.sidecar import Sidecar, SidecarVerdict, announced_digest, find_sidecars

CONTENT = b"footage"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
BESIDE = Sidecar(b"D/A.MP4.sha256", b"D/A.MP4", "sha256")


def test_a_checksum_file_belongs_to_the_name_before_its_ending() -> None:
    paths = [
        b"D/A.MP4",
        b"D/A.MP4.sha256",
        b"B.MP4.MD5",
        b"B.MP4",
        b"D/B.MP4",
        b"\xff\n",
        b"\xff\n.md5",
    ]
    assert find_sidecars(paths) == {
        b"D/A.MP4": BESIDE,
        b"B.MP4": Sidecar(b"B.MP4.MD5", b"B.MP4", "md5"),
        b"\xff\n": Sidecar(b"\xff\n.md5", b"\xff\n", "md5"),
    }


@pytest.mark.parametrize("endings", [("sha256", "md5"), ("SHA256", "md5"), ("sha256", "MD5")])
def test_of_two_the_stronger_counts(endings: tuple[str, str]) -> None:
    paths = [b"A", *(b"A." + ending.encode() for ending in endings)]
    for order in (paths, paths[::-1]):
        assert find_sidecars(order)[b"A"].algorithm == "sha256"


@pytest.mark.parametrize(
    "paths",
    [
        [b"A.sha256"],
        [b"A.MP4", b"B.MP4.sha256"],
        [b"A.MP4", b"A.sha256"],
        [b".sha256"],
        [b"A", b"A.sha1"],
        [b"D/A", b"E/A.md5"],
    ],
)
def test_a_checksum_file_without_its_recording_is_a_recording(paths: list[bytes]) -> None:
    """INV-2."""
    assert find_sidecars(paths) == {}


@pytest.mark.parametrize(
    "content",
    [
        f"{SHA256}  A.MP4\n",
        f"{SHA256} *A.MP4\r\n",
        f"{SHA256.upper()}  /media/card/D/A.MP4",
        f"{SHA256}  D:\\DCIM\\a.mp4\n",
        f"SHA256 (A.MP4) = {SHA256}\n",
        f"{SHA256}",
        f"\ufeff{SHA256}\n\n",
        f"  {SHA256}\t A.MP4  ",
        f"{OTHER}  B.MP4\n{SHA256}  A.MP4\n",
        f"; made by camera 7\n{SHA256}  A.MP4\n",
        f"{SHA256}  MOV_0001.MP4\n",
    ],
)
def test_forms_of_checksum_files(content: str) -> None:
    assert BESIDE.verdict(content.encode(), SHA256) is SidecarVerdict.MATCH
    assert BESIDE.mismatch(content.encode(), SHA256) is None
    assert BESIDE.verdict(content.encode(), OTHER) is SidecarVerdict.MISMATCH
    assert "D/A.MP4.sha256" in (BESIDE.mismatch(content.encode(), OTHER) or "")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 64, b"not a digest", SHA256[:-1].encode(), f"{SHA256}0".encode(),
        f"{MD5}  A.MP4".encode(), f"{SHA256}  B.MP4\n{OTHER}  C.MP4\n".encode(),
    ],
)  # fmt: skip
def test_what_names_no_digest_for_the_recording(content: bytes) -> None:
    """INV-1: not knowing is not proof, so it stops the wipe."""
    assert BESIDE.verdict(content, SHA256) is SidecarVerdict.UNREADABLE
    assert "cannot be understood" in (BESIDE.mismatch(content, SHA256) or "")


def test_md5() -> None:
    sidecar = Sidecar(b"A.md5", b"A", "md5")
    assert sidecar.mismatch(f"{MD5}  A\n".encode(), MD5) is None
    assert sidecar.mismatch(f"MD5 (A) = {MD5}".encode(), MD5) is None
    assert sidecar.mismatch(f"{MD5}  A\n".encode(), "0" * 32) is not None


@pytest.mark.parametrize("tool", ["sha256sum", "md5sum"])
@pytest.mark.parametrize(
    "name", [b"A.MP4", b"two words", b"back\\slash", b"new\nline", b"\xff\xfe"]
)
@pytest.mark.parametrize("arguments", [[], ["--binary"], ["--tag"]])
def test_what_the_usual_tools_write(
    tmp_path: Path, tool: str, name: bytes, arguments: list[str]
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    (tmp_path / name.decode(errors="surrogateescape")).write_bytes(CONTENT)
    command: list[str | bytes] = [tool, *arguments, b"--", name]
    written = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    algorithm = "sha256" if tool == "sha256sum" else "md5"
    lines = written + b"0" * len(SHA256 if algorithm == "sha256" else MD5) + b"  another\n"
    expected = SHA256 if algorithm == "sha256" else MD5
    assert announced_digest(lines, "sha256" if tool == "sha256sum" else "md5", name) == expected


@pytest.mark.parametrize(
    "line",
    [b" " * 65536, SHA256.encode() + b" a" + b" " * 65000 + b"\0", b"SHA256 (" + b")" * 65000],
)
def test_hostile_content_costs_little(line: bytes) -> None:
    """INV-8: quadratic matching of such a line would take minutes."""
    begun = time.process_time()
    BESIDE.mismatch(line, SHA256)
    assert time.process_time() - begun < 1


@given(st.binary() | st.text(alphabet="0123456789abcdef *\n()=SHA\\").map(str.encode))
def test_no_content_raises(content: bytes) -> None:
    BESIDE.mismatch(content, SHA256)
