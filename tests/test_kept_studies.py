"""What studies leave behind: each has a page of its document whose heading, colours and table say what its numbers say."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from analytic.io.ending import Incomplete
from fixtures.ab_testing import compare_evidence, gate_study, gate_study_evidence
from fixtures.ab_testing.compare_builds import Compared
from fixtures.ab_testing.gate_study import Live, Rate
from fixtures.ab_testing.pairs import Pair
from fixtures.ab_testing.pairwise import PairwiseVerdict
from fixtures.ab_testing.worker_process import Amount
from fixtures.evidence import kinds
from fixtures.evidence.card import Card
from fixtures.evidence.render import as_html
from fixtures.evidence.section import Page, Standing, Tone
from fixtures.evidence.study import Kind, Subject, keep, write_page_again
from fixtures.validation.counted_call import Work
from tests.samples import JOB, PLACE

PARTLY = Incomplete(reason="interrupted (Ctrl-C)", missing=("the verdict on decode[16]",))


def amount(flops: int) -> Amount:
    return Amount(
        executed_flops=flops, operator_calls=9, peak_bytes=5, blocks={"lm_head": Work(flops=flops, bytes=1, calls=9)}
    )


def compared(stage: str, ratio: float, verdict: PairwiseVerdict) -> Compared:
    """Eight pairs around head / base = `ratio`."""
    pairs = tuple(Pair(base_s=(1.0,), head_s=(ratio * (1 + 1e-4 * number),), dropped=0) for number in range(8))
    amounts = None
    if verdict is PairwiseVerdict.SLOWER:
        work = [
            Amount(
                executed_flops=flops,
                operator_calls=9,
                peak_bytes=5,
                blocks={"lm_head": Work(flops=flops, bytes=1, calls=9)},
            )
            for flops in (100, 103)
        ]
        amounts = (work[0], work[1])
    return Compared(stage=stage, pairs=pairs, verdict=verdict, amounts=amounts)


def comparison(*stages: Compared, incomplete: Incomplete | None = None) -> dict[str, Any]:
    found = {stage.stage: stage for stage in stages}
    about = {"base": "main (0123456789ab)", "head": "this", "device_name": "a CPU", "threshold": 0.05}
    built = compare_evidence.as_json(found, JOB, **about, incomplete=incomplete)  # type: ignore[arg-type]
    compare_evidence.COMPARE.check(built, where="a comparison")
    parsed: dict[str, Any] = json.loads(json.dumps(built))
    return parsed


def tones(page: Page) -> list[Tone]:
    """The colours of the rows of the first table."""
    table = page.sections[0].tables[0]
    return [table.tones.get(number, Tone.PLAIN) for number in range(len(table.rows))]


SLOWER = compared("decode[16]", 1.08, PairwiseVerdict.SLOWER)
FASTER = compared("prefill[16]", 0.54, PairwiseVerdict.FASTER)
SAME = compared("vision[tiny]", 1.001, PairwiseVerdict.SAME)


def test_a_comparison_with_a_slower_stage_is_headed_and_coloured_as_slower() -> None:
    page = compare_evidence.page_of(comparison(SLOWER, FASTER, SAME))
    assert page.standing is Standing.FAILED
    assert page.verdict[0] == "SLOWER: decode[16] +8.0%."  # the mean over 8 pairs of log(1.08 (1 + n 1e-4)), n = 0 to 7
    assert tones(page) == [Tone.BAD, Tone.GOOD, Tone.PLAIN]
    assert "decode[16] +8.0%; prefill[16] -46.0%; vision[tiny] +0.1%" in as_html(page)
    # 103 FLOPs where 100 were: 3% from more work
    assert "decode[16]: +8.0% time: +3.0% from more work" in page.sections[1].verbatim[0]


def test_a_comparison_without_a_slower_stage_passes_and_names_what_is_faster() -> None:
    page = compare_evidence.page_of(comparison(FASTER, SAME))
    assert (page.standing, page.verdict[0]) == (Standing.PASSED, "Nothing is slower; faster: prefill[16] -46.0%.")


def test_a_comparison_that_ended_early_judges_nothing() -> None:
    page = compare_evidence.page_of(comparison(SLOWER, incomplete=PARTLY))
    assert page.standing is Standing.INCOMPLETE
    assert page.verdict[0].startswith("INCOMPLETE: interrupted (Ctrl-C)")
    assert tones(page) == [Tone.PLAIN]


def test_a_comparison_is_read_back_as_it_was() -> None:
    assert compare_evidence.stages_of(comparison(SLOWER, SAME)) == {"decode[16]": SLOWER, "vision[tiny]": SAME}


def study(*, wrong: bool) -> dict[str, Any]:
    verdicts = {"same": PairwiseVerdict.SLOWER if wrong else PairwiseVerdict.SAME, "slower": PairwiseVerdict.SLOWER}
    live = [
        Live(kind=kind, verdict=verdicts[kind], pairs=8, mean_log_ratio=0.001, standard_error=0.002)
        for kind in gate_study.KINDS
    ]
    rates = [Rate.of("pairs, interleaved", kind, [kind == "slower"] * 4) for kind in gate_study.KINDS]
    pairs = {kind: list(SAME.pairs) for kind in gate_study.KINDS}
    place = {name: getattr(PLACE, name) for name in PLACE.__dataclass_fields__}
    built = gate_study.as_json(place, live, rates, pairs)
    gate_study.GATE_STUDY.check(built, where="a study")
    parsed: dict[str, Any] = json.loads(json.dumps(built))
    return parsed


@pytest.mark.parametrize(
    ("wrong", "standing", "said"),
    [(False, Standing.PASSED, "0 false alarms, 0 slowdowns"), (True, Standing.FAILED, "1 false alarms, 0 slowdowns")],
)
def test_a_study_of_the_gate_fails_when_a_live_comparison_was_wrong(wrong: bool, standing: Standing, said: str) -> None:
    page = gate_study_evidence.page_of(study(wrong=wrong))
    assert page.standing is standing
    assert page.verdict == (f"2 live comparisons of decode[1024]: {said} of 5% missed.",)
    assert tones(page) == [Tone.BAD if wrong else Tone.PLAIN, Tone.PLAIN]
    assert [figure.value for figure in page.figures] == ["0.00%", "100.00%"]


def documents() -> dict[str, tuple[dict[str, Any], Subject]]:
    """An example of every kind here, with what it is of."""
    compare, gate = comparison(SLOWER, FASTER, SAME), study(wrong=False)
    return {
        "compare": (compare, compare_evidence.subject_of(compare)),
        "gate_study": (gate, gate_study_evidence.subject_of(gate)),
    }


@pytest.mark.parametrize("name", documents())
def test_a_study_is_kept_listed_and_made_again(name: str, tmp_path: Path) -> None:
    kind: Kind = kinds.kind_named(name)
    document, subject = documents()[name]
    kept = keep(kind, document, subject, output_dir=tmp_path, arguments=["--any"])
    card, page = Card.read(kept.folder), kind.page(kind.document.read(kept.document))
    assert (card.standing, card.headline) == (page.standing, page.verdict[0])
    assert (card.model, card.command[:3]) == ("tiny", ("nox", "-s", name))
    index = (tmp_path / "index.html").read_text()
    assert f'href="{kept.folder.name}/report.html"' in index
    assert card.title in index
    assert ("FAILED: " in index, "SLOWER: decode[16] +8.0%<" in index) == (False, name == "compare")
    before = kept.page.read_bytes()
    kept.page.unlink()
    assert write_page_again(kind, kept.folder) == kept.page
    assert kept.page.read_bytes() == before
    assert as_html(page).count("<svg") == sum(len(section.charts) for section in page.sections)


def test_the_example_of_a_slowdown_is_eight_percent() -> None:
    assert math.expm1(SLOWER.statistics.mean) == pytest.approx(0.08, abs=0.001)
