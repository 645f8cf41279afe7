"""DeepSeek-OCR: SAM ViT-B and CLIP-L on the views of a page, a projector, a mixture-of-experts decoder.

hf_reading         reading one part of a Hugging Face config, field by field
hf_fields          every known field of such a config: a size, fixed, or free
hf_config          the dimensions in a Hugging Face config
hf_writing         what a checkpoint folder for engines says: the vendor's config, special tokens, processor
spec               dimensions: those that every model has, and CLIP
crop_rule          size of an image -> grid of local views
workload           pages: views, image tokens, the pages that a family knows, and the layout of a sequence
workload_profile   named, reproducible pages
mapping            analytic layer -> class of the real model
sam_attention      attention in windows or over the whole map, with decomposed relative positions
sam                the SAM encoder
vision             CLIP, projector, and the vision stack
moe                router, routed and shared experts
decoder_attention  attention with rotary positions and a KV cache, and the shape of one call
decoder            dense and sparse layers, norm, embedding, head
language_model     one call of the whole decoder
step_costs         the costs of many decode steps at once
model              the stateful root: vision, prefill, decode
family             what the registry is told: names in Hugging Face configs, parts that are timed alone, blocks of reports
"""
