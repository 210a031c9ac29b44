"""`report.html`: one file that a person passes on; each command that has one has a `page.py`."""
