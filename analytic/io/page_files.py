"""Pages read from files: their sizes in pixels, and each as PNG bytes, from images and from the pages of PDF files.

Sizes come from the headers alone, so that a folder of thousands of scans is read in seconds. An image is turned as its EXIF
orientation says; each image of a TIFF file is a page, of any other file the first. A PDF page is rendered at `dpi` dots per
inch; 144 by default, as the vendor's run_dpsk_ocr_pdf.py renders it.

Needs the extra `pages` (pillow and pypdfium2), which is imported only when a file is read.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analytic.io import shell

if TYPE_CHECKING:
    from PIL import Image

DPI: Final = 144
LEAST_DPI: Final = 18
MOST_DPI: Final = 1200
MOST_PIXELS: Final = 80_000_000
"""Most pixels of a page, 240 MB decoded: A0 at 200 dpi has 62 million. Larger ones are refused before they are decoded."""
MOST_PAGES: Final = 100_000
FORMATS: Final = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM")
"""The formats that are read: those of scans and screenshots, and none that starts another program."""
SUFFIXES: Final = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm")
)
"""Ends of names of the images in a folder, in lower case."""
PDF: Final = ".pdf"
EXIF_ORIENTATION: Final = 0x0112
SIDEWAYS: Final = frozenset((5, 6, 7, 8))
"""EXIF orientations that exchange width and height."""
ROUNDING: Final = 1 - 1e-7
"""Keeps a side that is a whole number of pixels from being rounded up to the next: 792 points at 300 dpi are 3,300 px."""
INSTALL: Final = shell.pip_install("-c", "constraints.txt", "-e", ".[pages]")

_reading = threading.Lock()
"""One page is read at a time: PDFium must not be called by two threads, and filters of warnings hold for all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePage:
    """One page of a file, with its size in pixels.

    number  of the page in its file, from 1
    of      pages of the file
    dpi     that a PDF page is rendered at; None for an image
    """

    path: Path
    number: int
    of: int
    width_px: int
    height_px: int
    dpi: float | None

    @property
    def name(self) -> str:
        """`scan.png`, or `report.pdf#3` in a file of several pages."""
        return self.path.name if self.of == 1 else f"{self.path.name}#{self.number}"

    @property
    def size(self) -> str:
        """`1654x2339`."""
        return f"{self.width_px}x{self.height_px}"

    def png(self) -> bytes:
        """The page as an RGB PNG of its size, on white where it is transparent. Raises ValueError if it cannot be drawn."""
        image = _image(self) if self.dpi is None else _rendered(self, self.dpi)
        if image.size != (self.width_px, self.height_px):
            raise ValueError(f"{self.path}: got a page of {image.width}x{image.height} px, where it had {self.size} before")
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFolder:
    """The pages of the images in a folder, and the names of its files that are no images by the end of their name."""

    pages: tuple[FilePage, ...]
    left_out: tuple[str, ...]


def in_folder(folder: Path) -> PageFolder:
    """The pages of every image in `folder`, in the order of their names; its subfolders are not read.

    Raises ValueError if there is no image in it, and for an image that cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"images: got {folder}, accepted: a folder of images")
    files = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name)
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        kinds = ", ".join(sorted(SUFFIXES))
        pdfs = sum(path.suffix.lower() == PDF for path in files)
        also = f"; {pdfs} PDF files are there, which --pdf takes" if pdfs else ""
        raise ValueError(f"images: got {folder}, without an image, accepted: a folder with files that end in {kinds}{also}")
    pages = tuple(page for path in images for page in of_image(path))
    return PageFolder(
        pages=_not_too_many(pages, f"images: got {folder}"),
        left_out=tuple(path.name for path in files if path not in set(images)),
    )


def of_file(path: Path, *, dpi: float = DPI) -> tuple[FilePage, ...]:
    """The pages of an image, or of a PDF, by the end of its name. Raises ValueError."""
    return of_pdf(path, dpi=dpi) if path.suffix.lower() == PDF else of_image(path)


def of_image(path: Path) -> tuple[FilePage, ...]:
    """The pages of an image file. Raises ValueError if it is none, or larger than MOST_PIXELS."""
    _require_file(path, "images")
    sizes = []
    with _opened(path) as image:
        for frame in range(_frames(image)):
            if frame:
                image.seek(frame)
            width, height = image.size
            sizes.append((height, width) if _orientation(image) in SIDEWAYS else (width, height))
    for width, height in sizes:
        _require_pixels(f"images: got {path}", width, height, "scale it down")
    return tuple(
        FilePage(path=path, number=number, of=len(sizes), width_px=width, height_px=height, dpi=None)
        for number, (width, height) in enumerate(sizes, start=1)
    )


def of_pdf(path: Path, *, dpi: float = DPI) -> tuple[FilePage, ...]:
    """The pages of a PDF file, rendered at `dpi`.

    Raises ValueError for a file that is no PDF, is damaged, needs a password, or has no pages or one above MOST_PIXELS.
    """
    if not LEAST_DPI <= dpi <= MOST_DPI:
        raise ValueError(f"dpi: got {dpi:g}, accepted: {LEAST_DPI} to {MOST_DPI} dots per inch (default: {DPI})")
    _require_file(path, "pdf")
    found: list[FilePage] = []
    with _document(path) as document:
        pages = len(document)
        for number in range(1, min(pages, MOST_PAGES + 1) + 1):
            width, height = (max(1, math.ceil(points * _scale(dpi))) for points in document.get_page_size(number - 1))
            _require_pixels(f"pdf: got page {number} of {path}", width, height, f"lower --dpi from {dpi:g}")
            found.append(FilePage(path=path, number=number, of=pages, width_px=width, height_px=height, dpi=dpi))
    return _not_too_many(found, f"pdf: got {path}")


def _scale(dpi: float) -> float:
    """Pixels per point, of which an inch has 72."""
    return dpi / 72 * ROUNDING


def _require_file(path: Path, field: str) -> None:
    if not path.is_file():
        raise ValueError(f"{field}: got {path}, accepted: a file; there is none of that name")


def _require_pixels(got: str, width: int, height: int, remedy: str) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{got}, of {width:,} x {height:,} px, accepted: at most {MOST_PIXELS:,} pixels; {remedy}")


def _not_too_many(pages: Sequence[FilePage], got: str) -> tuple[FilePage, ...]:
    if len(pages) > MOST_PAGES:
        raise ValueError(f"{got}, with more than {MOST_PAGES:,} pages, accepted: up to that many; give a part of them")
    return tuple(pages)


def _missing(package: str, error: ImportError) -> ValueError:
    return ValueError(f"pages: reading them needs {package} ({error}); install it with `{INSTALL}`")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image in `path`, with its header read. Raises ValueError for whatever else is in the file."""
    try:
        from PIL import Image
    except ImportError as error:
        raise _missing("pillow", error) from error
    try:
        with _reading, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tags, and of sizes, which MOST_PIXELS bounds
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"images: got {path}, accepted: at most {MOST_PIXELS:,} pixels ({error}); scale it down"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # pillow's readers raise whatever a damaged file leads them to
        raise ValueError(
            f"images: got {path}, which is no readable image ({error}), accepted: {', '.join(FORMATS)}; check the file, "
            f"or move it out of the folder"
        ) from error


def _frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied, 1 for none.

    That of a PNG counts only where it stands before the pixels, which are not read; pillow turns a TIFF itself.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    return int(image.getexif().get(EXIF_ORIENTATION, 1))


def _image(page: FilePage) -> Image.Image:
    from PIL import Image, ImageOps

    with _opened(page.path) as image:
        if page.number > 1:
            image.seek(page.number - 1)
        upright = image if _orientation(image) == 1 else ImageOps.exif_transpose(image)
        if not upright.has_transparency_data:
            return upright.convert("RGB")
        drawn = upright.convert("RGBA")
        white = Image.new("RGBA", drawn.size, "white")
        return Image.alpha_composite(white, drawn).convert("RGB")


@contextmanager
def _document(path: Path) -> Iterator[Any]:
    """The PDF document in `path`. Raises ValueError if PDFium cannot read it, whatever it is asked."""
    try:
        import pypdfium2
    except ImportError as error:
        raise _missing("pypdfium2", error) from error
    with _reading:
        try:
            document = pypdfium2.PdfDocument(path)
            try:
                if not len(document):
                    raise pypdfium2.PdfiumError("no pages")
                yield document
            finally:
                document.close()
        except pypdfium2.PdfiumError as error:
            if getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD:
                raise ValueError(
                    f"pdf: got {path}, which needs a password, accepted: a PDF that opens without; remove it first"
                ) from error
            raise ValueError(
                f"pdf: got {path}, which is no readable PDF with pages ({error}), accepted: an undamaged PDF file; check "
                f"that it opens in a viewer"
            ) from error


def _rendered(page: FilePage, dpi: float) -> Image.Image:
    with _document(page.path) as document:
        document.init_forms()
        drawn: Image.Image = document[page.number - 1].render(scale=_scale(dpi)).to_pil()
        return drawn.convert("RGB")
