"""Training: columns of models, evaluation, checkpoints and the loop that composes them."""
