"""The whole model: the stateful root of DeepSeek-OCR on another vision stack."""

from __future__ import annotations

from analytic.core.checks import accept
from analytic.core.execution import Execution
from analytic.models.deepseek_ocr.decoder_attention import DecoderShape
from analytic.models.deepseek_ocr.language_model import Decoder, Logits
from analytic.models.deepseek_ocr.model import DeepseekOCRModel
from analytic.models.deepseek_ocr2.spec import DeepseekOCR2Spec
from analytic.models.deepseek_ocr2.vision import QueryVisionStack


def root_of(spec: DeepseekOCR2Spec, *, run: Execution, logits: Logits) -> DeepseekOCRModel:
    """The stateful root of `spec` for `run`; `logits` of the `last` position or of `all`."""
    accept("logits", logits, ("last", "all"))
    shape = DecoderShape(batch=1, new_tokens=1, past_tokens=0)
    return DeepseekOCRModel.from_layers(
        QueryVisionStack(spec=spec, workload=spec.pages.gundam(None), batch=1, run=run),
        Decoder(spec=spec.text, shape=shape, logits=logits, run=run),
    )
