"""Unlimited-OCR: DeepSeek-OCR whose decoder attends to the prompt and to the last tokens that it decoded.

The encoders, the projector and the layers of the decoder are those of `deepseek_ocr`; this package has what differs.

text_spec  the dimensions of a decoder whose attention slides
sliding    the shape of a call under reference sliding attention
hf_config  the dimensions in a Hugging Face config
spec       dimensions, pages and crop rule
family     what the registry is told
"""
