"""The journal: the only owner of SQL. Begin with `journal.py`."""
