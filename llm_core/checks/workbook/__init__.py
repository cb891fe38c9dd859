"""What `python -m llm_core.checks` does with folders of lessons. Nothing here needs torch, and nothing runs a notebook.

files.py        reads notebooks that anybody may have written, and writes files whole or not at all
copies.py       start: a working copy of the lessons, and how an update of the course reaches it
results.py      status: what the check cells said, and whether it still holds
class_table.py  export: a class as CSV
students.py     student: the lessons without their solutions
"""
