"""JSON validated by schema, text tables, the style of charts, and how a command ends.

schemas    violations of a JSON Schema, and the defaults of missing properties
stored     presets, profiles and other JSON, checked against their schema and written atomically
leftovers  temporary files and folders, recognized and removed when their process was killed
ending     how a command ends: signals, full disks and lack of memory as a sentence and an exit code
table      rows of text as aligned lines
charts     the figures of plans and reports
"""
