"""The environment of an engine: made once, made again if it was not finished, and repaired where packages do not load."""

import subprocess
from pathlib import Path

import pytest

from fixtures.serving.engine_environment import COMPLETE, folder_of, prepared
from fixtures.serving.engine_process import EngineError


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The requirements of nothing, and the folder of the real environment that is made of them."""
    folder = tmp_path_factory.mktemp("engines")
    requirements = folder / "nothing.txt"
    requirements.write_text("# nothing\n")
    assert prepared(requirements, folder).repaired == ()
    return requirements, folder


def test_an_environment_is_made_once_and_used_again(
    environment: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    requirements, folder = environment
    found = prepared(requirements, folder)
    assert "made before" in capsys.readouterr().err
    prefix = subprocess.run([found.python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert Path(prefix.stdout.strip()) == found.folder


def test_other_requirements_are_another_environment(environment: tuple[Path, Path], tmp_path: Path) -> None:
    requirements, folder = environment
    other = tmp_path / requirements.name
    other.write_text("# nothing, again\n")
    assert folder_of(other, folder) != folder_of(requirements, folder)
    assert folder_of(other, folder).name.startswith("nothing-")


def test_an_environment_that_was_not_finished_is_made_again(environment: tuple[Path, Path]) -> None:
    requirements, folder = environment
    made = folder_of(requirements, folder)
    (made / COMPLETE).unlink()
    (made / "left over").touch()
    prepared(requirements, folder)
    assert (made / COMPLETE).exists()
    assert not (made / "left over").exists()


def test_an_environment_that_cannot_be_made_is_said_with_the_last_lines_of_its_log(tmp_path: Path) -> None:
    requirements = tmp_path / "wrong.txt"
    requirements.write_text("no_such_package @ file:///no/such/folder\n")
    with pytest.raises(EngineError, match=r"(?s)installation: ended with exit code 1 after .*last lines.*no/such/folder"):
        prepared(requirements, tmp_path)
    assert not (folder_of(requirements, tmp_path) / COMPLETE).exists()


def stand_in(site: Path, name: str, code: str) -> None:
    """A package of the environment that is only this code."""
    (site / name).mkdir(exist_ok=True)
    (site / name / "__init__.py").write_text(code)


TORCH = """
class library:
    defined = {}

    class Library:
        def __init__(self, name, kind):
            self.name = name

        def define(self, schema):
            library.defined[f"{self.name}::{schema.partition('(')[0]}"] = schema
"""
TORCHVISION = """
import torch
if "torchvision::nms" not in torch.library.defined:
    raise RuntimeError("operator torchvision::nms does not exist")
"""
IMAGE = """
_HAS_IMAGE_OPS = False

def decode_image(input, mode=None, apply_exif_orientation=False):
    raise RuntimeError("no compiled library")
"""


def test_what_does_not_load_beside_torch_is_repaired_in_our_environment_and_said(
    environment: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from fixtures.serving.engine_environment import repairs

    requirements, folder = environment
    found = prepared(requirements, folder)
    where = subprocess.run(
        [found.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    site = Path(where.stdout.strip())
    stand_in(site, "torch", TORCH)
    stand_in(site, "torchvision", TORCHVISION)
    stand_in(site / "torchvision", "io", "")
    (site / "torchvision" / "io" / "image.py").write_text(IMAGE)
    (said,) = repairs(found.python)
    assert "torchvision's compiled operators do not load beside this torch (RuntimeError: operator torchvision::nms" in said
    code = "import torchvision.io.image as i; print(i.decode_image.__module__)"
    loaded = subprocess.run([found.python, "-c", code], capture_output=True, text=True)
    assert (loaded.returncode, loaded.stdout) == (0, "torchvision_operators\n"), loaded.stderr
    assert list(repairs(found.python)) == []  # nothing is left to repair


def test_pillow_decodes_a_page_to_the_same_pixels() -> None:
    import io

    import numpy as np
    import torch
    from PIL import Image

    from fixtures.serving.page_image import PageSize, png
    from fixtures.serving.torchvision_operators import decode_image

    page = png(PageSize.parsed("20x16"), seed=1, number=2)
    pixels = decode_image(torch.frombuffer(bytearray(page), dtype=torch.uint8))
    assert (pixels.shape, pixels.dtype) == ((3, 16, 20), torch.uint8)
    assert torch.equal(pixels.permute(1, 2, 0), torch.from_numpy(np.array(Image.open(io.BytesIO(page)))))
