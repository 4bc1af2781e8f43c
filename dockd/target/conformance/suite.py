"""All checks in their order, with the clause that each is about, and what came of them."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from dockd.core.errors import TargetError
from dockd.target.answers import Answer, Verb
from dockd.target.conformance import receipts, uploads
from dockd.target.conformance.probe import (
    DeviationError,
    NotCheckedError,
    NotOfferedError,
    Probe,
    Subject,
)


class Outcome(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_OFFERED = "not offered"
    """The target does not say that it can do this."""
    NOT_CHECKED = "not checked"
    """It cannot be found out from here, or something for it is missing."""
    STATED = "stated"
    """Nobody can find out; the target answers for it."""
    NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its clause in docs/upload-target.md, and how it is tried."""

    clause: str
    run: Callable[[Probe], Awaitable[None]]

    @property
    def name(self) -> str:
        """A name that stays, whatever number the check has."""
        return self.run.__name__

    @property
    def title(self) -> str:
        """What is demanded, in a line."""
        return (self.run.__doc__ or "").splitlines()[0]

    async def outcome(self, probe: Probe) -> tuple[Outcome, str]:
        """Try it. Returns words for everything but a pass."""
        stated = self.run is receipts.states_durability
        try:
            await self.run(probe)
        except (DeviationError, TargetError) as error:
            return Outcome.FAILED, str(error)
        except NotOfferedError as error:
            return Outcome.NOT_OFFERED, str(error)
        except NotCheckedError as error:
            return (Outcome.NOT_STATED if stated else Outcome.NOT_CHECKED), str(error)
        return (Outcome.STATED if stated else Outcome.PASSED), ""


CHECKS = (
    Check("§2.1", uploads.names_what_it_offers),
    Check("§2.2", receipts.states_durability),
    Check("§3.1", uploads.creates_uploads),
    Check("§4.1", uploads.takes_bytes),
    Check("§3.2", uploads.takes_any_name),
    Check("§3.2", uploads.takes_little_metadata),
    Check("§3.5", uploads.takes_empty_recordings),
    Check("§4.2", uploads.refuses_wrong_offsets),
    Check("§4.2", uploads.refuses_too_many_bytes),
    Check("§4.9", uploads.knows_what_it_does_not_have),
    Check("§4.5", uploads.goes_on_after_a_break),
    Check("§4.7", uploads.lets_one_request_write),
    Check("§4.8", uploads.lets_unfinished_uploads_expire),
    Check("§3.4", uploads.takes_bytes_with_creation),
    Check("§4.3", uploads.finds_altered_bytes),
    Check("§4.3", uploads.finds_altered_creations),
    Check("§3.3", uploads.creates_once),
    Check("§3.3", uploads.loses_no_answer),
    Check("§3.3", uploads.keeps_docks_apart),
    Check("§5.1", receipts.signs_what_it_holds),
    Check("§5.1", receipts.signs_with_the_pinned_key),
    Check("§5.1", receipts.signs_each_upload_for_itself),
    Check("§5.2", receipts.gives_the_same_receipt_again),
    Check("§5.3", receipts.says_when_it_is_still_checking),
    Check("§5.3", receipts.signs_nothing_unfinished),
    Check("§5.4", receipts.answers_with_the_receipt),
    Check("§4.4", receipts.refuses_other_bytes),
    Check("§5.5", receipts.confirms_true_manifests),
    Check("§5.5", receipts.refuses_false_manifests),
    Check("§8.2", receipts.keeps_finished_footage),
    Check("§8.3", receipts.hands_its_key_on),
    Check("§9.1", uploads.gives_bytes_back),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check, by its number; ``words`` say why, unless it passed."""

    number: int
    check: Check
    outcome: Outcome
    words: str


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all. ``left`` are finished uploads that stay on the target, and their bytes."""

    url: str
    results: Sequence[Result]
    left: tuple[int, int]

    @property
    def conforms(self) -> bool:
        """Whether no check failed. What is not offered is no failure; what is promised must be so."""
        return all(result.outcome is not Outcome.FAILED for result in self.results)

    def outcome(self, name: str) -> Outcome:
        """Return what came of the check with this name."""
        return next(each.outcome for each in self.results if each.check.name == name)

    @property
    def confirms_by(self) -> tuple[str, ...]:
        """By what a dock could confirm footage there, as far as this check can tell."""
        possible = {
            "receipt": self.conforms and self.outcome("signs_what_it_holds") is Outcome.PASSED,
            "readback": self.outcome("gives_bytes_back") is Outcome.PASSED,
        }
        return tuple(name for name, there in possible.items() if there)


async def check_target(subject: Subject, tell: Callable[[Result], None] = lambda _: None) -> Report:
    """Try all checks, one after the other; ``tell`` hears of each result as it comes.

    Raises TargetError when the server does not answer OPTIONS or lets nobody in, and KeyFileError.
    """
    async with Probe(subject) as probe:
        reply = await probe.options()
        words = reply.body.decode(errors="replace")
        Answer(Verb.DISCOVER, subject.url, reply.status, "", reply.headers, words).check()
        offered = reply.headers.get("Tus-Extension", "")
        probe.offers = frozenset(item.strip().lower() for item in offered.split(","))
        results = []
        for number, check in enumerate(CHECKS, start=1):
            outcome, words = await check.outcome(probe)
            results.append(Result(number, check, outcome, words))
            tell(results[-1])
        for url in probe.unfinished:
            with suppress(TargetError, DeviationError):
                await probe.delete(url)
        left = (len(probe.finished), sum(probe.finished.values()))
        return Report(subject.url, tuple(results), left)
