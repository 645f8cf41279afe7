"""Other tools on the same calls: processes that end in every way, MACs, the tables, and torch's own counter."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytic.io import stored
from analytic.io.markdown import marks
from fixtures.drift.overlay import OverlayError
from fixtures.evidence.card import Card
from fixtures.evidence.section import Standing
from fixtures.evidence.study import keep, write_page_again
from fixtures.peers import __main__ as peers
from fixtures.peers import measured as measuring
from fixtures.peers.measured import measured
from fixtures.peers.peer_results import PEERS_STUDY, PeerResult, PeerStudy, as_json
from fixtures.peers.peer_table import JUDGED, PEERS, Peer, peer_named
from fixtures.peers.peers_evidence import STUDY, page_of, subject_of
from fixtures.peers.peers_text import SESSION, call_rows, lines, summary_rows, written
from fixtures.peers.points import CALLS, FULL, TINY, PeerCall, lacking, must_cost
from fixtures.peers.probe import asked

BEGIN, END = marks(SESSION)
VISION, PREFILL, PREFILL_BATCHED, DECODE, DECODE_BATCHED = CALLS
MADE_UP = Peer(
    name="made-up",
    distribution=None,
    requirement=None,
    place="ours",
    counts="FLOPs",
    reads="config",
    counter="tests.made_up_peers:right",
    used="not at all",
)


def told(counter: str, *, limit_s: float = 600.0, **changes: Any) -> list[PeerResult]:
    """The results of a made-up peer."""
    found: list[PeerResult] = []
    peer = replace(MADE_UP, counter=f"tests.made_up_peers:{counter}", **changes)
    measured([peer], found, limit_s=limit_s, progress=lambda _: None)
    return found


@pytest.fixture
def only_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer is asked one call, so that a test takes one process."""
    monkeypatch.setattr(Peer, "calls", property(lambda self: (PREFILL,)))


def test_a_peer_that_reads_dimensions_is_asked_each_stage_once() -> None:
    found = told("right")
    assert [result.call for result in found] == [VISION, PREFILL, DECODE]
    assert [result.error for result in found] == [0, 0, 0]
    assert {(result.moved_bytes, result.notes, result.failure) for result in found} == {(5_000_000_000, ("a note",), None)}
    assert all(result.seconds is not None and result.seconds >= 0 for result in found)


@pytest.mark.usefixtures("only_prefill")
def test_multiply_adds_are_doubled() -> None:
    (result,) = told("in_macs", counts="MACs")
    assert (result.flops, result.error) == (must_cost(PREFILL, FULL).flops, 0)
    (half,) = told("in_macs")
    assert half.error == pytest.approx(-0.5)


@pytest.mark.usefixtures("only_prefill")
def test_what_a_wrong_count_lacks_is_named() -> None:
    (result,) = told("without_experts")
    # six of 64 experts with three matrices of 1280 x 896, 11 layers, 1024 positions
    assert result.must.flops - (result.flops or 0) == 2 * 1024 * 11 * 6 * 3 * 1280 * 896
    assert result.lacks == ("routed experts",)


@pytest.mark.usefixtures("only_prefill")
@pytest.mark.parametrize(
    ("counter", "failure"),
    [
        ("malformed", "it told 'many', accepted: a whole number of at least 0"),
        ("raising", "no rule for config.json, see https://example.org/a/b"),
        ("leaving", "ended with exit code 3"),
        ("exiting", "it exits with no such model"),
        ("killed", "ended by SIGKILL"),
        ("no_such_counter", "AttributeError: module 'tests.made_up_peers' has no attribute 'no_such_counter'"),
    ],
)
def test_a_peer_that_fails_is_a_row_with_its_reason(counter: str, failure: str) -> None:
    (result,) = told(counter)
    assert (result.flops, result.seconds, result.error) == (None, None, None)
    assert result.failure == failure


@pytest.mark.usefixtures("only_prefill")
def test_a_peer_that_does_not_end_is_ended() -> None:
    (result,) = told("endless", limit_s=1.0)
    assert result.failure == "no end within 1 s"


def test_a_peer_that_cannot_be_installed_is_a_row_of_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def none(peer: Peer) -> Iterator[Path]:
        raise OverlayError("made-up==1: no such release for this Python and system")
        yield Path()

    monkeypatch.setattr(measuring, "environment_of", none)
    found = told("right")
    assert [result.call for result in found] == [VISION, PREFILL, DECODE]
    assert {result.failure for result in found} == {"made-up==1: no such release for this Python and system"}


@pytest.mark.usefixtures("only_prefill")
def test_a_peer_that_needs_numbers_counts_the_tiny_preset() -> None:
    (result,) = told("without_meta", reads="model", distribution="torch")
    assert (result.size, result.flops) == (TINY, 1)
    assert result.failure == "NotImplementedError: it needs numbers"
    assert result.version is not None


@pytest.mark.parametrize("call", [VISION, PREFILL_BATCHED, DECODE_BATCHED], ids=lambda call: call.stage)
def test_torchs_counter_finds_the_closed_form_where_it_sees_every_product(call: PeerCall, tmp_path: Path) -> None:
    answer = asked(peer_named(JUDGED).counter, call, FULL, reads="model", folder=tmp_path)
    assert (answer["count"], answer["notes"]) == (must_cost(call, FULL).flops, [])


def test_torchs_counter_has_no_formula_for_grouped_experts(tmp_path: Path) -> None:
    answer = asked(peer_named(JUDGED).counter, DECODE, FULL, reads="model", folder=tmp_path)
    assert lacking(answer["count"], must_cost(DECODE, FULL)) == ("routed experts",)
    assert answer["notes"] == ["no formula: aten._grouped_mm"]


def test_two_n_d_is_two_flops_a_parameter_and_token(tmp_path: Path) -> None:
    counts = {
        name: asked(peer_named(name).counter, call, FULL, reads="config", folder=tmp_path)["count"]
        for name, call in (("2nd-activated", DECODE), ("2nd-all", PREFILL))
    }
    # attention and dense layer, norms aside; MoE layers: router, shared experts, and six or all of 64 experts; the head
    attention, dense, norms, head = 12 * 4 * 1280**2, 3 * 1280 * 6848, 25 * 1280, 129280 * 1280
    router, shared, expert = 11 * 64 * 1280, 11 * 3 * 1280 * 1792, 11 * 3 * 1280 * 896
    beside = attention + dense + norms + head + router + shared
    assert counts["2nd-activated"] == 2 * (beside + 6 * expert)
    assert counts["2nd-all"] == 2 * 1024 * (beside + 64 * expert)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.label)
@pytest.mark.parametrize("size", [FULL, TINY], ids=lambda size: size.preset)
def test_the_groups_of_a_call_are_all_of_it(call: PeerCall, size: Any) -> None:
    must = must_cost(call, size)
    assert sum(must.groups.values()) == must.flops
    assert lacking(must.flops, must) == lacking(2 * must.flops, must) == ()
    assert lacking(0, must) == ()  # every tool has a rule for linear layers, so that something else is wrong
    large = {name: flops for name, flops in must.groups.items() if name != "linear layers" and flops > 0.002 * must.flops}
    assert {name: lacking(must.flops - flops, must) for name, flops in large.items()} == {name: (name,) for name in large}


def result_of(peer: str, call: PeerCall, flops: int | None, **changes: Any) -> PeerResult:
    usual: dict[str, Any] = {
        "version": "1.0",
        "size": FULL,
        "moved_bytes": None,
        "seconds": 0.25,
        "failure": None,
        "notes": (),
    }
    return PeerResult(peer=peer, call=call, flops=flops, **usual | changes)


def document(*found: PeerResult, peers: tuple[str, ...] = ("torch", "thop"), incomplete: Any = None) -> dict[str, Any]:
    built = as_json(
        found,
        [peer_named(name) for name in peers],
        created="2026-11-26T10:00:00+00:00",
        commit=None,
        python="3.11.7",
        libraries={"torch": "2.13.0", "transformers": "5.24.0"},
        incomplete=incomplete,
    )
    found_again: dict[str, Any] = PEERS_STUDY.current(json.loads(json.dumps(built)), where="peers.json")
    return found_again


MUST = must_cost(PREFILL, FULL)
EXAMPLE = (
    result_of("torch", PREFILL, MUST.flops - MUST.groups["routed experts"], notes=("no formula: aten._grouped_mm",)),
    result_of("torch", PREFILL_BATCHED, MUST.flops),
    result_of("thop", PREFILL, must_cost(PREFILL, TINY).flops * 3, size=TINY, failure="no <meta> | here"),
    result_of("thop", DECODE, None, failure="fails for a reason", seconds=None, version=None),
)


def test_the_tables_have_errors_reasons_and_units() -> None:
    study = PeerStudy.from_json(document(*EXAMPLE))
    # grouped experts are 465.064 of 901.603 GFLOP
    assert summary_rows(study) == [
        ("torch", "1.0", "FLOPs", "-", "-51.58%", "0", "-", "-"),
        ("thop", "1.0", "MACs", "-", "+200.00% (tiny)", "-", "fails", "-"),
    ]
    assert call_rows(study, PREFILL) == [
        ("torch", "437", "-51.58%", "-", "0.25", "lacks routed experts; no formula: aten._grouped_mm"),
        ("thop", "4.50", "+200.00% (tiny)", "-", "0.25", "full size: no <meta> | here"),
    ]
    assert call_rows(study, DECODE) == [("thop", "-", "fails", "-", "-", "fails for a reason")]
    assert lines(study)[-1] == "thop, decode, grouped_mm: fails: fails for a reason"


def test_the_page_of_the_docs_is_written_between_its_markers() -> None:
    study = PeerStudy.from_json(document(*EXAMPLE))
    page = written(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n", study)
    assert page.startswith(
        f"# Before\n\n{BEGIN}\n\nMade by `nox -s peers` on 2026-11-26, Python 3.11.7, beside torch 2.13.0"
    )
    assert page.endswith(f"{END}\n\nAfter\n")
    assert "old" not in page
    assert "| torch | 437 | -51.58% | - | 0.25 | lacks routed experts; no formula: aten.\\_grouped\\_mm |" in page
    assert "full size: no &lt;meta> \\| here |" in page
    assert written(page, study) == page
    with pytest.raises(ValueError, match="got a page without the lines"):
        written("# Nothing", study)


@pytest.mark.parametrize(
    ("found", "standing", "said"),
    [
        (EXAMPLE, Standing.PASSED, "0 of 2 peers are within 1% of the closed form on every call."),
        (
            (result_of("torch", VISION, 7),),
            Standing.FAILED,
            "WRONG: vision, grouped_mm: torch counts 7 FLOPs, closed form ",
        ),
        (
            (result_of("torch", VISION, None, failure="lost"),),
            Standing.FAILED,
            "WRONG: vision, grouped_mm: torch gives no count: lost.",
        ),
        ((result_of("torch", PREFILL, 7),), Standing.MEASURED, "0 of 2 peers"),
        ((result_of("thop", VISION, 7),), Standing.MEASURED, "0 of 2 peers are within 1%"),
    ],
)
def test_the_closed_form_is_held_to_torchs_counter(found: tuple[PeerResult, ...], standing: Standing, said: str) -> None:
    page = page_of(document(*found))
    assert page.standing is standing
    assert page.verdict[0].startswith(said)


def test_a_study_of_peers_is_kept_and_its_page_made_again(tmp_path: Path) -> None:
    kept = keep(STUDY, document(*EXAMPLE), subject_of(), output_dir=tmp_path, arguments=[])
    before = kept.page.read_bytes()
    kept.page.unlink()
    write_page_again(STUDY, kept.folder)
    assert kept.page.read_bytes() == before
    assert Card.read(kept.folder).standing is Standing.PASSED


@pytest.fixture
def asked_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[PeerResult | BaseException], None]:
    """Let the command find these results, and end as told."""

    def set_up(*told: PeerResult | BaseException) -> None:
        def measure(_: Any, found: list[PeerResult], **__: Any) -> None:
            for one in told:
                if isinstance(one, BaseException):
                    raise one
                found.append(one)

        monkeypatch.setattr(peers, "measured", measure)

    return set_up


def test_the_command_writes_the_page_and_keeps_the_study(
    asked_of: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "peers.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    asked_of(*(result_of(peer.name, call, must_cost(call, FULL).flops) for peer in PEERS for call in peer.calls))
    assert peers.main(["--output", str(page), "--output-dir", str(tmp_path / "out")]) == 0
    assert "| fvcore | 1.0 | MACs | 0 | 0 | 0 | 0 | 0 |" in page.read_text()
    assert (tmp_path / "out" / "latest-peers" / "peers.json").is_file()
    assert f"wrote {page}" in capsys.readouterr().out


def test_the_command_fails_where_torchs_counter_differs(asked_of: Callable[..., None], tmp_path: Path) -> None:
    asked_of(*(result_of("torch", call, 7) for call in CALLS))
    assert peers.main(["--only", "torch", "--output-dir", str(tmp_path)]) == 1


def test_an_interrupted_command_keeps_what_was_told_and_writes_no_page(
    asked_of: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "peers.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    asked_of(*(result_of("torch", call, must_cost(call, FULL).flops) for call in CALLS), KeyboardInterrupt())
    assert peers.main(["--output", str(page), "--output-dir", str(tmp_path / "out")]) == 130
    assert page.read_text() == f"{BEGIN}\n{END}\n"
    kept = PEERS_STUDY.read(tmp_path / "out" / "latest-peers" / "peers.json")
    rest = [peer.name for peer in PEERS if peer.name != "torch"]
    assert kept["incomplete"]["missing"] == rest
    assert f"ask the rest with `nox -s peers -- --only {' '.join(rest)}`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "flopth"], "--only: got 'flopth', accepted: torch, fvcore, "),
        (["--timeout-s", "0"], "--timeout-s: got 0, accepted: above 0"),
        (["--output", "/proc/nowhere/peers.md"], "No such file"),
        (["--output", str(stored.ROOT / "README.md")], "--output: got a page without the lines"),
    ],
)
def test_an_unusable_command_line_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_the_page_of_the_docs_has_every_peer_with_its_version() -> None:
    page = (stored.ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    for peer in PEERS:
        assert f"\n| {peer.name} | " in page
        assert peer.requirement is None or f"`{peer.requirement}`" in page
