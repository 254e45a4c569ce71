"""The journal: the only owner of SQL."""
