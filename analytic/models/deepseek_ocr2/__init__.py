"""DeepSeek-OCR-2: SAM ViT-B and a query encoder on the views of a page, a projector, the decoder of DeepSeek-OCR.

workload   pages: views, the queries that read each, and the crop rule
hf_fields  every known field of a Hugging Face config: a size, fixed, or free
hf_config  the dimensions in such a config
spec       dimensions, from a preset or a Hugging Face config
mapping    analytic layer -> class of the real model
encoder    Qwen2 layers with grouped heads under a mixed mask
vision     the encoders on every view, the projector, and the assembly of the image tokens
model      the stateful root
family     what the registry is told

SAM, the decoder and the layers of both are in `deepseek_ocr`.
"""
