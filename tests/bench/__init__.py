"""Benchmarks of the running product beside baselines; see `python -m tests.bench --help`."""
