"""The closed-form cost model of DeepSeek-OCR: FLOPs, bytes, memory and KV cache from shapes alone.

Pure arithmetic: nothing here imports torch, and every formula takes an int or a numpy array alike.
"""
