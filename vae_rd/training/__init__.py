"""Training: columns of models, evaluation, and the loop that composes them."""
