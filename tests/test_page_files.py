"""Pages in files: their sizes as a viewer shows them, each as PNG, and what is no page refused in a sentence."""

import io
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from analytic.io import page_files
from analytic.io.page_files import MOST_PIXELS, FilePage, in_folder, of_file, of_image, of_pdf

DATA = Path(__file__).parent / "data"
A4_POINTS, LETTER_POINTS = (595.276, 841.89), (612, 792)


def image(path: Path, size: tuple[int, int], **saved: object) -> Path:
    Image.new("RGB", size, "white").save(path, **saved)  # type: ignore[arg-type]
    return path


def pdf(path: Path, *points: tuple[float, float]) -> Path:
    pypdfium2 = pytest.importorskip("pypdfium2", reason="the extra `tests` has it")
    document = pypdfium2.PdfDocument.new()
    for width, height in points:
        document.new_page(width, height)
    document.save(path)
    document.close()
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and has one byte of pixels."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0")),
        (b"IEND", b""),
    )
    framed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def sizes(pages: tuple[FilePage, ...]) -> list[str]:
    return [page.size for page in pages]


def test_the_images_of_a_folder_are_pages_in_the_order_of_their_names(tmp_path: Path) -> None:
    image(tmp_path / "b.PNG", (600, 400))
    image(tmp_path / "a.jpg", (1654, 2339))
    image(tmp_path / "c.webp", (30, 20))
    (tmp_path / "labels.txt").write_text("no image")
    (tmp_path / "sub").mkdir()
    image(tmp_path / "sub" / "d.png", (10, 10))
    found = in_folder(tmp_path)
    assert [(page.name, page.size) for page in found.pages] == [
        ("a.jpg", "1654x2339"),
        ("b.PNG", "600x400"),
        ("c.webp", "30x20"),
    ]
    assert found.left_out == ("labels.txt",)


def test_every_image_of_a_tiff_is_a_page_and_of_an_animation_the_first(tmp_path: Path) -> None:
    frames = [Image.new("1", size) for size in ((100, 200), (300, 200))]
    frames[0].save(tmp_path / "scan.tiff", save_all=True, append_images=frames[1:])
    pages = of_image(tmp_path / "scan.tiff")
    assert [(page.name, page.size) for page in pages] == [("scan.tiff#1", "100x200"), ("scan.tiff#2", "300x200")]
    assert [Image.open(io.BytesIO(page.png())).size for page in pages] == [(100, 200), (300, 200)]
    colours = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    colours[0].save(tmp_path / "moving.gif", save_all=True, append_images=colours[1:])
    assert [page.name for page in of_image(tmp_path / "moving.gif")] == ["moving.gif"]


def test_an_image_is_turned_as_a_viewer_turns_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: what the camera stored as 30 x 20 is shown as 20 x 30
    (page,) = of_image(image(tmp_path / "photo.jpg", (30, 20), exif=exif))
    assert page.size == "20x30"
    assert Image.open(io.BytesIO(page.png())).size == (20, 30)
    exif[0x0112] = 3  # half a turn
    assert sizes(of_image(image(tmp_path / "photo.jpg", (30, 20), exif=exif))) == ["30x20"]


def test_a_transparent_page_is_sent_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    (page,) = of_image(tmp_path / "clear.png")
    sent = Image.open(io.BytesIO(page.png()))
    assert (sent.format, sent.mode, sent.getpixel((1, 1))) == ("PNG", "RGB", (255, 255, 255))


def test_a_pdf_has_the_sizes_that_it_is_rendered_in(tmp_path: Path) -> None:
    # 144 dpi are 2 px a point: 1190.552 x 1683.78 and 1224 x 1584, a part of a pixel taken as one
    file = pdf(tmp_path / "report.pdf", A4_POINTS, LETTER_POINTS)
    pages = of_file(file)
    assert [(page.name, page.size) for page in pages] == [("report.pdf#1", "1191x1684"), ("report.pdf#2", "1224x1584")]
    assert sizes(of_pdf(file, dpi=200)) == ["1654x2339", "1700x2200"]
    # 792 points at 300 dpi are 3,300 px, in floats 3300.0000000000005, and not 3,301
    assert sizes(of_pdf(file, dpi=300))[1] == "2550x3300"
    for page in of_pdf(file, dpi=50):
        assert Image.open(io.BytesIO(page.png())).size == (page.width_px, page.height_px)


def test_pages_are_rendered_in_several_threads(tmp_path: Path) -> None:
    pages = of_pdf(pdf(tmp_path / "many.pdf", *[LETTER_POINTS] * 12), dpi=20)
    with ThreadPoolExecutor(4) as pool:
        assert len({bytes(png) for png in pool.map(FilePage.png, pages)}) == 1


def test_a_page_whose_file_has_changed_is_not_sent(tmp_path: Path) -> None:
    (page,) = of_image(image(tmp_path / "page.png", (30, 20)))
    image(tmp_path / "page.png", (31, 20))
    with pytest.raises(ValueError, match="got a page of 31x20 px, where it had 30x20 before"):
        page.png()


def test_a_truncated_image_is_refused_when_it_is_drawn(tmp_path: Path) -> None:
    Image.effect_noise((200, 200), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:9_000])
    (page,) = of_image(tmp_path / "cut.png")
    with pytest.raises(ValueError, match=r"images: got .*cut.png, which is no readable image \(.*truncated"):
        page.png()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no readable image"),
        (b"# a text\n", "no readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no readable image"),
        (png_header(9_000, 8_889), "page.png, of 9,000 x 8,889 px, accepted: at most 80,000,000 pixels; scale it down"),
        (png_header(2**31 - 1, 2**31 - 1), "accepted: at most 80,000,000 pixels"),
    ],
)
def test_what_is_no_image_or_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "page.png").write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(message)):
        in_folder(tmp_path)


def test_a_damaged_image_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "tiff", "webp", "gif", "bmp"):
        whole = image(tmp_path / f"whole.{suffix}", (40, 30)).read_bytes()
        damaged = tmp_path / f"damaged.{suffix}"
        for place in range(0, len(whole), max(1, len(whole) // 60)):
            damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            refused = ""
            try:
                for page in of_image(damaged):
                    page.png()
            except ValueError as error:
                refused = str(error)
            assert not refused or str(damaged) in refused


def test_the_limit_is_below_the_one_that_pillow_warns_at() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MOST_PIXELS < Image.MAX_IMAGE_PIXELS


def test_a_folder_without_an_image_says_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"images: got .*, accepted: a folder of images"):
        in_folder(tmp_path / "none")
    (tmp_path / "report.pdf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"that end in \.bmp, .*; 1 PDF files are there, which --pdf takes"):
        in_folder(tmp_path)


def test_a_pdf_that_is_none_or_needs_a_password_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="the extra `tests` has it")
    with pytest.raises(ValueError, match=r"encrypted.pdf, which needs a password, accepted: a PDF that opens without"):
        of_pdf(DATA / "encrypted.pdf")
    pdf(tmp_path / "empty.pdf")
    for data in (b"", b"no PDF", b"%PDF-1.7\n%%EOF", (tmp_path / "empty.pdf").read_bytes()):
        (tmp_path / "damaged.pdf").write_bytes(data)
        with pytest.raises(
            ValueError, match=r"damaged.pdf, which is no readable PDF with pages \(.*accepted: an undamaged PDF file"
        ):
            of_pdf(tmp_path / "damaged.pdf")
    with pytest.raises(ValueError, match=r"pdf: got .*none.pdf, accepted: a file; there is none of that name"):
        of_pdf(tmp_path / "none.pdf")


def test_a_page_that_would_be_rendered_too_large_is_refused(tmp_path: Path) -> None:
    file = pdf(tmp_path / "poster.pdf", LETTER_POINTS, (7200, 7200))
    # 7,200 points are 100 inches: 14,400 x 14,400 px at 144 dpi
    with pytest.raises(ValueError, match=r"page 2 of .*, of 14,400 x 14,400 px, .*; lower --dpi from 144"):
        of_pdf(file)
    assert sizes(of_pdf(file, dpi=72)) == ["612x792", "7200x7200"]
    for dpi in (0, -72, 17.9, 1201, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"dpi: got .*, accepted: 18 to 1200 dots per inch \(default: 144\)"):
            of_pdf(file, dpi=dpi)


@pytest.mark.parametrize(("package", "file"), [("PIL", "page.png"), ("pypdfium2", "page.pdf")])
def test_a_missing_extra_names_the_command_that_installs_it(tmp_path: Path, package: str, file: str) -> None:
    (tmp_path / file).write_bytes(b"content")
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from pathlib import Path; from analytic.io import page_files\n"
        f"try: page_files.of_file(Path({str(tmp_path / file)!r}))\n"
        f"except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pages: reading them needs pillow (") or package == "pypdfium2"
    assert done.stdout.startswith("pages: reading them needs pypdfium2 (") or package == "PIL"
    assert done.stdout.endswith("install it with `pip install -c constraints.txt -e '.[pages]'`\n")


def test_neither_package_is_imported_before_a_file_is_read() -> None:
    code = "import sys; from analytic.io import page_files; sys.exit(bool({'PIL', 'pypdfium2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_that_installs_them_names_an_extra_of_the_project() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    (extra,) = re.findall(r"'\.\[(\w+)\]'", page_files.INSTALL)
    assert re.search(rf'^{extra} = \["pillow', text, re.MULTILINE)
