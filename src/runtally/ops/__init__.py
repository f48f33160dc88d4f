"""Commands for operators: topics, benchmarks."""
