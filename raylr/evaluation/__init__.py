"""Scores of MMLU and CMMLU of checkpoints."""
