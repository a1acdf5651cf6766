"""How fast the program is, against references that are measured in the same run: python -m tests.benchmarks."""
