"""Unlimited-OCR as the registry knows it: DeepSeek-OCR's parts and layers, another decoder shape, more tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from analytic.io.documents import Document
from analytic.models.deepseek_ocr.family import FAMILY as DEEPSEEK_OCR
from analytic.models.unlimited_ocr.hf_config import CONFIGS, NAME
from analytic.models.unlimited_ocr.spec import UnlimitedOCRSpec

UNLIMITED_PRESET: Final = Document(name="unlimited_ocr_spec")

FAMILY: Final = replace(
    DEEPSEEK_OCR,
    name=UnlimitedOCRSpec.family,
    title=NAME,
    configs=CONFIGS,
    presets=UNLIMITED_PRESET,
    full_size="unlimited-ocr-base",
    small="unlimited-tiny",
    spec=UnlimitedOCRSpec,
    engine_files=None,
)
