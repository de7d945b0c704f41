"""Corpora: reading text, tokenising it, and the windows that a run trains on."""
