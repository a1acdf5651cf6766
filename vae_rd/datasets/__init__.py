"""Data on disk and in memory: shards and their checks, splits, seeded random streams."""
