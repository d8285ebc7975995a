"""The report: what the stored results say, in words, and whether they still hold. May import: everything."""
