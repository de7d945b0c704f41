"""Figures of a study, drawn from its fits with matplotlib."""
