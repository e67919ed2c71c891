"""The benchmark of dicomfs: `scripts/bench` runs it."""
