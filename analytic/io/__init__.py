"""JSON validated by schema, text tables, the style of charts, pages in files, and how a command ends.

leftovers   temporary files and folders, recognized and removed when their process was killed
stored      where files of the project are, and how files are written
json_text   JSON text as a value: finite numbers, bounded depth and size, valid text
schemas     violations of a JSON Schema, and the defaults of missing properties
documents   a kind of stored JSON: validated, migrated, read and written
shell       the commands that messages tell a reader to run
run_record  the record of a run, also of earlier schemas
importing   whether code is run by the import of a module
signals     what the first signal does, and a second
ending      how a command ends: signals, full disks and lack of memory as a sentence and an exit code
starting    and how it ends while its modules are imported
child       processes that end with the one that started them
page_files  pages of images and PDF files: sizes in pixels, and each as PNG
argument_types  types of command line arguments: a wrong one is refused with what is accepted
table       rows of text as aligned lines
markdown    tables in Markdown, and the parts of the docs that sessions write
charts      the figures of plans and reports
"""
