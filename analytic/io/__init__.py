"""JSON by schema, tables in text, and the style of pictures.

stored  presets, profiles and other JSON, checked against their schema, written whole or not at all
table   rows of text as aligned lines
charts  the figures of plans and reports
"""
