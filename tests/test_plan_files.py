"""Pages of files on the command line: crops of images and PDF pages, the mix that they make, and plans of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from analytic.__main__ import main
from analytic.models.deepseek_ocr.crop_rule import TRANSFORMERS
from analytic.planning.page_counts import counted, mix_of, read_mix
from tests.samples import RECORD

VLLM = ["--served-by", "vllm"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of three pages that transformers cuts 2x3, of two sizes, and one that nobody cuts."""
    for name, size in (("a.png", (1654, 2339)), ("b.png", (1654, 2339)), ("c.png", (1700, 2500)), ("d.png", (600, 400))):
        Image.new("1", size).save(tmp_path / name)
    (tmp_path / "labels.json").write_text("{}")
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def in_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(printed(capsys, *arguments, "--json"))


def pdf(path: Path, *sizes: tuple[int, int]) -> Path:
    pypdfium2 = pytest.importorskip("pypdfium2", reason="the extra `tests` has it")
    document = pypdfium2.PdfDocument.new()
    for size in sizes:
        document.new_page(*size)
    document.save(path)
    return path


def test_an_image_is_a_size(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = in_json(capsys, "crops", str(scans / "a.png"))
    (given,) = in_json(capsys, "crops", "1654x2339")
    assert found == {**given, "page": "a.png"}


def test_a_folder_is_counted_by_size_and_gives_its_mix(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "crops", "--images", str(scans)).splitlines()
    # 3 pages of 273 + 630 tokens and one of 273
    assert lines[:2] == [
        "4 pages of 4 files: 745.5 image tokens in the mean",
        "left out, no images by their names: labels.json",
    ]
    assert lines[3].split() == ["1654x2339", "2", "50.0%", "2x3", "7", "903", "a.png"]
    assert lines[-1] == "by views: --mix 2x3=0.75 base=0.25"
    names = [page["page"] for page in in_json(capsys, "crops", "--images", str(scans))]
    assert names == ["a.png", "b.png", "c.png", "d.png"]


def test_a_pdf_is_counted_at_its_resolution(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(pdf(tmp_path / "report.pdf", (595, 842), (595, 842), (200, 200)))
    lines = printed(capsys, "crops", "--pdf", file).splitlines()
    assert lines[0].startswith("3 pages of 1 file: ")
    assert lines[1] == "PDF pages are rendered at 144 dots per inch"
    assert lines[3].split()[:4] == ["1190x1684", "2", "66.7%", "2x3"]
    assert [page["size"] for page in in_json(capsys, "crops", file, "--dpi", "72")] == ["595x842", "595x842", "200x200"]


def test_a_pdf_in_a_folder_of_images_is_left_out_unless_it_is_given(
    scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pdf(scans / "report.pdf", (200, 200))
    left_out = "left out, no images by their names: labels.json"
    assert f"{left_out}, report.pdf" in printed(capsys, "crops", "--images", str(scans)).splitlines()
    assert left_out in printed(capsys, "crops", "--images", str(scans), "--pdf", str(file)).splitlines()


def test_the_mix_of_files_is_kept_and_planned_with(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = scans / "pages.mix"
    assert f"wrote {file}" in printed(capsys, "crops", "--images", str(scans), "--write-mix", str(file))
    assert read_mix(file) == ["1654x2339px=0.5", "1700x2500px=0.25", "600x400px=0.25"]
    plan = ["capacity", "--on", "h200"]
    from_file = in_json(capsys, *plan, "--mix", str(file))
    lines = printed(capsys, *plan, "--images", str(scans)).splitlines()
    assert lines[:2] == ["read 4 pages of 4 files", "left out, no images by their names: labels.json, pages.mix"]
    assert (
        from_file
        == in_json(capsys, *plan, "--images", str(scans))
        == in_json(capsys, *plan, "--mix", "2x3=0.75", "base=0.25")
    )
    assert [(page["page"], page["share"], page["seq_len"]) for page in from_file["pages"]] == [
        ("gundam-2x3", 0.75, 903 + 1 + 16),
        ("base", 0.25, 273 + 1 + 16),
    ]


def test_the_sizes_of_a_mix_are_cut_by_who_serves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "slides.mix").write_text("# slides\n\n1920x1080px=1\n")
    plan = ["capacity", "--on", "h200", "--mix", str(tmp_path / "slides.mix")]
    assert in_json(capsys, *plan)["pages"][0]["page"] == "gundam-4x2"
    assert in_json(capsys, *plan, *VLLM)["pages"][0]["page"] == "gundam-2x1"
    assert printed(capsys, *plan, *VLLM).startswith("crop rule: vllm, at most 6 tiles")


def test_pages_that_are_cut_alike_are_one_shape_of_the_mix() -> None:
    sizes = counted([(1654, 2339, "a"), (1700, 2500, "b"), (600, 400, "c"), (1654, 2339, "d")])
    assert [(size.label, size.count, size.example) for size in sizes] == [
        ("1654x2339", 2, "a"),
        ("1700x2500", 1, "b"),
        ("600x400", 1, "c"),
    ]
    mix = mix_of(sizes, seq_len=None, prompt_tokens=0, new_tokens=9, crop_rule=TRANSFORMERS)
    assert [(page.label, page.share) for page in mix.pages] == [("gundam-2x3", 0.75), ("base", 0.25)]


def test_several_images_in_a_request_are_not_cut_by_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    found = in_json(capsys, "crops", "1920x1080", "--images-per-request", "2", *VLLM)
    assert (found[0]["grid"], found[0]["image_tokens"]) == (None, 273)


def test_a_page_of_a_file_is_a_point_of_other_commands(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_file = in_json(capsys, "cost", "--image", str(scans / "a.png"), "--seq-len", "1024")
    assert of_file == in_json(capsys, "cost", "--image-size", "1654x2339", "--seq-len", "1024")
    predict = ["predict", "--on", "xeon-2-threads", "--seq-len", "1024"]
    assert in_json(capsys, *predict, "--image", str(scans / "a.png"))["page"] == "gundam-2x3"


def test_sweeps_and_demand_cut_their_pages_as_the_engine_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    demand = ["demand", "--seq-lens", "1400"]
    assert {one["page"] for one in in_json(capsys, *demand)["first_token"]} >= {"gundam-3x3", "gundam-2x4", "gundam-1x7"}
    swept = {one["page"] for one in in_json(capsys, *demand, *VLLM)["first_token"]}
    assert swept == {"base", "gundam-1x2", "gundam-1x3", "gundam-2x2", "gundam-1x5", "gundam-2x3"}
    (page,) = in_json(capsys, *demand, "--crop-grids", "slide-16x9", *VLLM)["first_token"]
    assert page["page"] == "gundam-2x1"
    text = printed(
        capsys,
        "sweep",
        "--seq-lens",
        "64",
        "--crop-grids",
        "1920x1080px",
        "--max-tiles",
        "4",
        "--output-dir",
        str(tmp_path),
    )
    assert text.startswith("crop rule: max4, at most 4 tiles")
    assert printed(capsys, *demand, *VLLM).startswith("crop rule: vllm")
    assert "crop rule" not in printed(capsys, *demand, "--crop-grids", *VLLM)


def test_a_record_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    found = in_json(capsys, "capacity", "--record", str(RECORD))
    stored = json.loads(RECORD.read_text(encoding="utf-8"))
    assert found["model"] == stored["timed"]["model"]
    assert found["execution"] == {name: stored["timed"]["execution"][name] for name in ("attention", "experts", "dtype")}
    assert found["memory_bytes"] == stored["environment"]["device"]["memory_bytes"]
    assert (found["pages"][0]["page"], found["pages"][0]["seq_len"]) == ("gundam-2x1", 1024)
    repeated = ["--preset", "tiny", "--dtype", "float32", "--crop-grid", "2x1", "--seq-len", "1024"]
    assert in_json(capsys, "capacity", "--record", str(RECORD), *repeated) == found


def test_stored_rates_are_planned_with_by_the_name_of_their_device(capsys: pytest.CaptureFixture[str]) -> None:
    found = in_json(capsys, "capacity", "--on", "xeon-2-threads", "--memory-gb", "16", "--crop-grid", "2x1")
    assert (found["times"]["source"], found["model"]["model_variant"]) == ("predicted", "tiny")
    assert found["times"]["file"].endswith("baselines/xeon-2-threads/rates.json")
    # the driver's name of this one is that of a datasheet, which has its memory
    found = in_json(capsys, "capacity", "--on", "nvidia-h200", "--crop-grid", "2x1")
    assert (found["times"]["source"], found["memory_bytes"]) == ("predicted", 141e9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["capacity", "--device", "h200"],
            "argument --device: got 'h200', accepted: --on NAME, the device that is planned",
        ),
        (
            ["predict", "--device", "cpu", "--no-image", "--seq-len", "8"],
            "argument --device: got 'cpu', accepted: --on NAME",
        ),
        (
            ["cost", "--device", "cpu", "--no-image", "--seq-len", "8"],
            "got 'cpu', accepted: --kernels DEVICE, whose operators",
        ),
        (["sweep", "--device", "cpu", "--output-dir", "out"], "accepted: --kernels DEVICE"),
        (["demand", "--device", "cuda"], "--device is where a command runs the model, and this one runs nothing"),
        (["capacity", "--on", "h200", "--on", "h100-sxm"], "argument --on: got h200 and h100-sxm, accepted: one device"),
        (
            ["predict", "--on", "h200", "--no-image", "--seq-len", "8"],
            "h200 has a datasheet, and `python -m analytic capacity",
        ),
        (["crops"], "size: got none, accepted: WxH in pixels"),
        (
            ["crops", "640"],
            "size: got '640', accepted: WxH in positive whole numbers, such as 1654x2339, or an image or PDF",
        ),
        (["crops", "nowhere.png"], "images: got nowhere.png, accepted: a file; there is none of that name"),
        (["crops", "--images", "2"], "images: got 2, accepted: a folder of images"),
        (["crops", "--pdf", "nowhere.pdf"], "pdf: got nowhere.pdf, accepted: a file"),
        (
            ["crops", "600x400", "--write-mix", "/proc/nowhere/mix"],
            "write_mix: got /proc/nowhere/mix, accepted: a writable",
        ),
        (["capacity", "--on", "h200", "--mix", "nowhere"], "mix: got nowhere, accepted: PAGE=SHARE, such as"),
        (
            ["capacity", "--on", "h200", "--images", "x", "--mode", "base"],
            "mode: got it beside --images or --pdf, accepted: one",
        ),
        (["capacity", "--on", "h200", "--loop-tokens", "9"], "loop_tokens: got 9 without --loop-share, accepted: both"),
        (["capacity", "--on", "h200", "--devices", "0"], "devices: got 0, accepted: a whole number of at least 1"),
        (["capacity", "--on", "h200", "--pages-per-s", "0"], "pages_per_s: got 0, accepted: above zero"),
        (["capacity", "--on", "h200", "--token-s", "-1"], "token_s: got -1, accepted: seconds above zero"),
        (["capacity", "--memory-gb", "24", "--token-s", "1"], "on: got none, accepted: a device with a datasheet"),
        (["capacity", "--memory-gb", "24", "--devices", "2"], "on: got none, accepted: a device with a datasheet"),
        (
            ["demand", "--crop-grids", "3x3", "--served-by", "vllm"],
            "crop_grids: got 3x3 (9 tiles), accepted: at most 6 tiles",
        ),
        (["cost", "--image", "nowhere.tif", "--seq-len", "8"], "images: got nowhere.tif, accepted: a file"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    refused: Callable[[list[str]], str], arguments: list[str], message: str
) -> None:
    assert message in refused(arguments)


def test_a_file_of_several_pages_is_no_point(
    tmp_path_factory: pytest.TempPathFactory, refused: Callable[[list[str]], str]
) -> None:
    file = tmp_path_factory.mktemp("scans") / "scan.tiff"
    frames = [Image.new("1", (100, 200)) for _ in range(2)]
    frames[0].save(file, save_all=True, append_images=frames[1:])
    said = refused(["cost", "--image", str(file), "--seq-len", "1024"])
    assert f"with 2 pages, accepted: a file of one page; `python -m analytic crops {file}` takes several" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "with 0 pages, accepted: 1 to 10,000 lines"),
        ("base\n", "mix: got 'base' in"),
        ("\0\xff", "mix: got"),
    ],
)
def test_a_file_that_is_no_mix_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pages.mix").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_mix(tmp_path / "pages.mix")
