"""JSON validated by schema, text tables, and the style of charts.

schemas  violations of a JSON Schema, and the defaults of missing properties
stored   presets, profiles and other JSON, checked against their schema and written atomically
table    rows of text as aligned lines
charts   the figures of plans and reports
"""
