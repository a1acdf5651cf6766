"""What lies on disk of a run: its directory, files that appear whole or not at all, checkpoints."""
