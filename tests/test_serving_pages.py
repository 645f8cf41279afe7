"""Pages as they are sent: images of a size, no two of them equal, and the user's own."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analytic.io.page_files import in_folder
from analytic.models.deepseek_ocr.crop_rule import RULES
from fixtures.serving.page_image import PageSize, png
from fixtures.serving.page_set import OwnPages
from tests.serving_runs import run, started
from tests.serving_stub import Stub, size_of

__all__ = ["run", "started"]  # fixtures


def pixels(image: bytes) -> tuple[int, int, bytes]:
    """Width, height and the rows of an RGB image without filters, read chunk by chunk."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(image):
        (length,) = struct.unpack(">I", image[at : at + 4])
        kind, content = image[at + 4 : at + 8], image[at + 8 : at + 8 + length]
        assert struct.unpack(">I", image[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + content),)
        chunks[kind], at = content, at + 12 + length
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    rows = zlib.decompress(chunks[b"IDAT"])
    assert len(rows) == height * (1 + 3 * width)
    assert {rows[row * (1 + 3 * width)] for row in range(height)} == {0}
    return width, height, rows


def test_a_page_is_an_image_of_its_size_and_no_two_are_equal() -> None:
    size = PageSize.parsed("61x17")
    found = [pixels(png(size, seed=seed, number=number)) for seed in (1, 2) for number in (0, 1, 256)]
    assert {(width, height) for width, height, _ in found} == {(61, 17)}
    assert len({rows for *_, rows in found}) == 6
    assert pixels(png(size, seed=1, number=0)) == found[0]


def test_a_page_is_read_by_a_common_decoder() -> None:
    image = png(PageSize.parsed("61x17"), seed=7, number=9)
    with Image.open(io.BytesIO(image)) as decoded:
        assert (decoded.size, decoded.mode) == ((61, 17), "RGB")
        assert decoded.getpixel((0, 0)) == (0, 0, 0)
        assert decoded.getpixel((1, 0)) == (7, 0, 0)  # the seed 7 and the number 9, four bytes each
        assert decoded.getpixel((2, 0)) == (0, 9, 0)


def drawn(folder: Path, *sizes: tuple[int, int]) -> None:
    """Images of one colour, named in the order given."""
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (number, 200, 9)).save(folder / f"{number}.png")


def test_own_images_are_sent_in_turn_and_each_is_held_to_its_own_size(
    started: Callable[..., Stub], run: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    drawn(folder, (600, 400), (1920, 1080))
    (folder / "notes.txt").write_text("not a page")
    stub = started()
    code, said, kept = run(stub, "--images", str(folder), "--concurrency", "1", "--requests", "3", "--output-tokens", "1")
    assert code == 0, said
    assert "serve: --images: left out notes.txt" in said
    (cell,) = kept["cells"]
    assert cell["name"] == "images-c1"
    assert [(shape["page"], shape["image_tokens"]) for shape in cell["shapes"]] == [
        ("600x400px", 273),
        ("1920x1080px", 1_093),  # 273 + (10 * 4 + 1) * 10 * 2
    ]
    # one of warm-up begins the set, and three that are measured begin it again
    assert [size_of(image) for image in stub.images] == [(600, 400), (600, 400), (1920, 1080), (600, 400)]
    assert [answer["shape"] for answer in cell["measured"]] == [0, 1, 0]
    assert [answer["prompt_tokens"] for answer in cell["measured"]] == [277, 1_097, 277]


def test_an_own_page_that_is_cut_otherwise_is_named_by_its_size(
    started: Callable[..., Stub], run: Callable, tmp_path: Path
) -> None:
    drawn(tmp_path, (600, 400), (1920, 1080))
    stub = started(rule=RULES["vllm"])
    code, _, kept = run(stub, "--images", str(tmp_path), "--concurrency", "1", "--requests", "2", "--output-tokens", "1")
    assert code == 1
    (problem,) = kept["problems"]
    assert problem.startswith("1920x1080px: got 483 image tokens in 1 request, closed form 1,093")


def test_an_own_page_is_changed_in_three_pixels_so_that_no_cache_holds_it(tmp_path: Path) -> None:
    drawn(tmp_path, (64, 64))
    pages = OwnPages.cut_by(RULES["vllm"], "images", in_folder(tmp_path).pages)
    with Image.open(tmp_path / "0.png") as opened:
        before = np.array(opened)
    found = []
    for number in (0, 1):
        with Image.open(io.BytesIO(pages.image(0, seed=5, number=number))) as opened:
            found.append(np.array(opened))
    for after in found:
        assert (after[0, 3:] == before[0, 3:]).all()
        assert (after[1:] == before[1:]).all()
    assert (found[0] != found[1]).any()


def test_the_pages_of_a_pdf_are_sent(started: Callable[..., Stub], run: Callable, tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    path = tmp_path / "report.pdf"
    # A6 and A7 at 72 dpi: 298 x 420 and 210 x 298 points
    pages = [Image.new("RGB", size, "white") for size in ((298, 420), (210, 298))]
    pages[0].save(path, save_all=True, append_images=pages[1:], resolution=72)
    stub = started()
    few = ("--concurrency", "1", "--requests", "2", "--warmup", "0", "--output-tokens", "1")
    code, said, kept = run(stub, "--pdf", str(path), "--dpi", "144", *few)
    assert code == 0, said
    assert [shape["page"] for shape in kept["cells"][0]["shapes"]] == ["596x840px", "420x596px"]
    assert [size_of(image) for image in stub.images] == [(596, 840), (420, 596)]


def test_a_page_that_is_too_small_is_named(tmp_path: Path) -> None:
    drawn(tmp_path, (8, 8))
    with pytest.raises(ValueError, match=r"0\.png: page 0\.png: width_px: got 8"):
        OwnPages.cut_by(RULES["vllm"], "images", in_folder(tmp_path).pages)
