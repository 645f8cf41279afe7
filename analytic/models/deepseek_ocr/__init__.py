"""DeepSeek-OCR: SAM ViT-B and CLIP-L on the views of a page, a projector, a mixture-of-experts decoder.

spec            dimensions, from a preset or a Hugging Face config
workload        pages: crop rule, views, image tokens, and the layout of a sequence
mapping         analytic layer -> class of the real model
sam_attention   attention in windows or over the whole map, with decomposed relative positions
sam             the SAM encoder
vision          CLIP, projector, and the vision stack
moe             router, routed and shared experts
decoder         attention with a KV cache, dense and sparse layers, embedding, head
language_model  one call of the whole decoder
model           the stateful root: vision, prefill, decode
"""
