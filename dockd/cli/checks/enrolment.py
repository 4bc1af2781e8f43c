"""Checks of the dock's enrolment: what is pinned, who can change it, and until when the store knows it."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from dockd.cli.checks import Finding, Level
from dockd.config import TargetConfig
from dockd.enrolled import EnrolledFiles
from dockd.evidence.certificates import load_certificates
from dockd.helper.config import others_can_change

CHECK = "enrolment"
RENEW = "See docs/enrolment.md; if the store does not renew it: dockd enroll, with a new token."


def check_enrolment(files: EnrolledFiles, target: TargetConfig, now: datetime) -> Iterator[Finding]:
    """The pins are root's alone and in force, and the certificate has time left.

    Raises EnrolmentError and KeyFileError.
    """
    pinned = files.read()
    if pinned is not None and pinned.store_id != target.store_id:
        words = f"enrolled at {pinned.store_id}, but the configuration names {target.store_id}"
        advice = (
            "Take store_id and receipt_key out of [target], or remove the enrolment's directory."
        )
        yield Finding(CHECK, Level.WARN, words, advice)
        return
    problems = [] if pinned is None else list(_changeable(files))
    for problem in problems:
        yield Finding(CHECK, Level.FAIL, problem, "Only root may be able to change what is pinned.")
    if target.certificate is None:
        yield Finding(CHECK, Level.OK, "not enrolled; the store does not ask who it is")
        return
    finding = _check_certificate(target.certificate, now)
    if not problems or finding.level is not Level.OK:
        yield finding


def _changeable(files: EnrolledFiles) -> Iterator[str]:
    problems = [
        problem
        for file in (files.store, files.ca, files.receipt_key)
        for problem in others_can_change(file)
    ]
    yield from dict.fromkeys(problems)


def _check_certificate(path: Path, now: datetime) -> Finding:
    certificate = load_certificates(path)[0]
    begins, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    words = f"the store knows this dock until {until:%Y-%m-%d %H:%M} UTC"
    if now < begins:
        words = f"by this dock's clock, its certificate begins only at {begins:%Y-%m-%d %H:%M} UTC"
        return Finding(CHECK, Level.FAIL, words, "Set the clock.")
    if now >= until:
        words = f"its certificate ended at {until:%Y-%m-%d %H:%M} UTC, by this dock's clock"
        return Finding(CHECK, Level.FAIL, words, RENEW)
    if now >= until - (until - begins) / 6:
        return Finding(CHECK, Level.WARN, f"{words}, and should be renewed by now", RENEW)
    return Finding(CHECK, Level.OK, words)
