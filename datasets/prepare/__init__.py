"""The command that prepares data sets: `python3 -m datasets.prepare`."""
