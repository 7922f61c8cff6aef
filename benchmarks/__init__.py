"""What a stream costs, next to other plugins and to floors. `python -m benchmarks` runs it."""
