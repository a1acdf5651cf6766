"""What is read off finished runs: experiments, tables, statistics, claims and plots, all without TensorFlow."""
