"""A study keeps a document, a page and a card in a folder of its own, which the index lists whatever its kind."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from analytic.io.documents import Document
from fixtures.evidence import kinds
from fixtures.evidence.card import CARD_FILE, Card
from fixtures.evidence.index import write_index
from fixtures.evidence.section import Page, Standing
from fixtures.evidence.study import Kept, Kind, Subject, keep

PEAKS: Final = Document(name="hardware")
HARDWARE: Final = Path(__file__).resolve().parent.parent / "analytic" / "data" / "hardware.json"


def page_of(document: Mapping[str, Any]) -> Page:
    known = len(document["devices"])
    return Page(
        title="Datasheets",
        subtitle="",
        standing=Standing.INCONCLUSIVE,
        verdict=(f"{known} devices: <b> & too few.", "More."),
    )


KIND: Final = Kind(name="sheets", title="Datasheets by hand", document=PEAKS, page=page_of)
SUBJECT: Final = Subject(model="tiny", device="A device", ways=("eager/sdpa/grouped_mm, float32, batch 1",))


def kept(output_dir: Path, **changes: Any) -> Kept:
    document = json.loads(HARDWARE.read_text()) | changes
    return keep(KIND, document, SUBJECT, output_dir=output_dir, arguments=["--all"])


def test_a_study_is_kept_whole_in_a_folder_of_its_own(tmp_path: Path) -> None:
    found = kept(tmp_path)
    assert {path.name for path in found.folder.iterdir()} == {"hardware.json", "report.html", "report.md", CARD_FILE}
    card = Card.read(found.folder)
    assert (card.kind, card.title, card.model, card.device, card.ways) == (
        "sheets",
        "Datasheets by hand",
        "tiny",
        "A device",
        SUBJECT.ways,
    )
    assert (card.standing, card.headline) == (Standing.INCONCLUSIVE, page_of(PEAKS.read(found.document)).verdict[0])
    assert card.command == ("nox", "-s", "sheets", "--", "--all")
    assert found.page.is_file()
    assert (tmp_path / "latest-sheets").resolve() == found.folder


def test_a_second_study_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    first = kept(tmp_path)
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    second = kept(tmp_path)  # in the same second, by the same process
    assert second.folder != first.folder
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before
    assert (tmp_path / "latest-sheets").resolve() == second.folder


def test_a_document_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"hardware\.json: .*devices"):
        kept(tmp_path, devices=3)
    assert list(tmp_path.iterdir()) == []


def test_the_index_lists_a_kind_that_nobody_declared(tmp_path: Path) -> None:
    found = kept(tmp_path)
    text = write_index(tmp_path).read_text()
    assert f'href="{found.folder.name}/report.html"' in text
    for shown in ("Datasheets by hand", "inconclusive: ", "devices: &lt;b&gt; &amp; too few.", "A device", "eager/sdpa"):
        assert shown in text
    assert "sheets" not in kinds.names()


def test_a_damaged_card_is_named_and_the_others_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = kept(tmp_path)
    (tmp_path / "noise-1").mkdir()
    (tmp_path / "noise-1" / CARD_FILE).write_text('{"schema_version": "1.0"}')
    assert f'href="{found.folder.name}/report.html"' in write_index(tmp_path).read_text()
    assert "index: noise-1/study.json: cannot be read: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x.html", "a/b.html", ".hidden.html"])
def test_a_card_names_only_files_of_its_folder(tmp_path: Path, name: str) -> None:
    found = kept(tmp_path)
    path = found.folder / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"page": name}))
    with pytest.raises(ValueError, match="page"):
        Card.read(found.folder)


def test_every_declared_kind_has_the_name_of_its_module() -> None:
    assert [kinds.kind_named(name).name for name in kinds.names()] == list(kinds.names())


def test_a_kind_that_is_not_declared_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="kind: got 'nothing', accepted: "):
        kinds.kind_named("nothing")
