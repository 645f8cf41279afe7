"""Workload profiles: named, reproducible pages, stored in `analytic/data/profiles/`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from analytic.core.checks import whole
from analytic.io import stored
from analytic.io.documents import Document
from analytic.models.deepseek_ocr.crop_rule import CropGrid
from analytic.models.deepseek_ocr.workload import PAGES, PageFormat, TokenLayout, VisionWorkload

PROFILE: Final = Document(name="workload_profile")


@dataclass(frozen=True, kw_only=True, slots=True)
class OCRWorkloadProfile:
    """A named, reproducible page: views, sequence length, greedy decoding of `max_new_tokens`."""

    profile_id: str
    description: str
    seq_len: int
    base_size: int
    image_size: int
    crop_mode: bool
    crop_grid: CropGrid | None
    decoding: str
    max_new_tokens: int

    def __post_init__(self) -> None:
        if self.crop_grid is not None and not self.crop_mode:
            raise ValueError(f"crop_grid: got {self.crop_grid}, accepted: null while crop_mode is false")
        whole("max_new_tokens", self.max_new_tokens)
        TokenLayout.of(self.seq_len, self.vision)

    @property
    def vision(self) -> VisionWorkload:
        """The views of the page, for DeepSeek-OCR."""
        return self.page_of(PAGES)

    def page_of(self, known: PageFormat) -> VisionWorkload:
        """The views of the page for a family of models: with crops, its tiles have the side of the family's."""
        if self.crop_grid is not None:
            return replace(known.gundam(self.crop_grid), base_size=self.base_size)
        return known.views(base_size=self.base_size, image_size=self.image_size, grid=None)

    @property
    def layout(self) -> TokenLayout:
        """The layout of the sequence."""
        return TokenLayout.of(self.seq_len, self.vision)

    @classmethod
    def from_stored(cls, name: str) -> OCRWorkloadProfile:
        """The stored profile `name`. Raises ValueError if unknown or damaged."""
        return cls.from_file(stored.path_of("profiles", name, field="profile"))

    @classmethod
    def from_file(cls, path: Path) -> OCRWorkloadProfile:
        """The profile in `path`. Raises ValueError if it is damaged."""
        loaded = PROFILE.read(path)
        loaded.pop("schema_version")
        grid = loaded.pop("crop_grid")
        try:
            return cls(crop_grid=None if grid is None else CropGrid.parse(grid), **loaded)
        except ValueError as error:
            raise ValueError(f"profile {path.stem}: {error}") from error
