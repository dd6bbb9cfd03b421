"""The commands, one per file; main.py puts them together."""
