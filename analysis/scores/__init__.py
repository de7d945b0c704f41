"""Scores of benchmarks such as MMLU: suites, accuracies with intervals, loss to score."""
