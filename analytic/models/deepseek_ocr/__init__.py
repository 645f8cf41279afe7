"""DeepSeek-OCR: SAM ViT-B and CLIP-L on the views of a page, a projector, a mixture-of-experts decoder.

spec            its dimensions, from a preset or a Hugging Face config
workload        pages: the crop rule, views, image tokens, what fills a sequence
mapping         analytic layer -> class of the real model
sam_attention   attention in windows or over the whole map, with decomposed relative positions
sam             the SAM encoder
vision          CLIP, projector, and the vision stack
moe             router, routed and shared experts
decoder         attention with a KV cache, dense and sparse layers, embedding, head
language_model  the decoder for one call
model           the stateful root: vision, prefill, decode
"""
