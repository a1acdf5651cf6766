"""From run directories to tables, statistics and verdicts on the claims."""
