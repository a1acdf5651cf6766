"""The same training written plainly in JAX: one jitted step with donated buffers, Adam by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


class Training:
    """A beta-VAE trained from given weights.

    Args:
        weights: kernel and bias of each layer as the Keras model holds them: hidden layers of the encoder, its two
            heads, layers of the decoder.
        images: [num, height, width, channels] uint8.
        config: the run's vae_rd.config.Config.
    """

    def __init__(self, weights: list[np.ndarray], images: np.ndarray, config):
        self._images, self._key = jnp.asarray(images), jax.random.key(config.seed)
        weights = [jnp.array(weight) for weight in weights]
        self.state = (weights, *([jnp.zeros_like(weight) for weight in weights] for _ in range(2)))
        self._step = jax.jit(functools.partial(_step, config=config), donate_argnums=0)

    def train(self, batches: np.ndarray, first_step: int) -> np.ndarray:
        """Runs the steps of `batches` [steps, batch]; returns mean rate and distortion [steps, 2]."""
        trace = []
        for number, rows in enumerate(batches, first_step):
            self.state, metrics = self._step(self.state, self._images, rows, self._key, number)
            trace.append(metrics)
        return np.stack(jax.device_get(trace))


def terms(weights, images, noise, architecture, num_layers):
    """Rate and distortion [batch] of images [batch, height, width, channels] in [0, 1], in nats per image."""
    layers = list(zip(weights[::2], weights[1::2]))
    encoder, heads, decoder = layers[:num_layers], layers[num_layers:num_layers + 2], layers[num_layers + 2:]
    hidden = images
    if architecture == "cnn":
        for kernel, bias in encoder:
            hidden = jax.lax.conv_general_dilated(hidden, kernel, (2, 2), "SAME",
                                                  dimension_numbers=("NHWC", "HWIO", "NHWC"))
            hidden = jax.nn.relu(hidden + bias)
        side, width = hidden.shape[1:3]
    hidden = hidden.reshape(len(images), -1)
    if architecture == "mlp":
        for kernel, bias in encoder:
            hidden = jax.nn.relu(hidden @ kernel + bias)
    mean, log_scale = (hidden @ kernel + bias for kernel, bias in heads)
    stddev = jnp.exp(log_scale)
    hidden = mean + stddev * noise
    dense = decoder[:1] if architecture == "cnn" else decoder[:-1]
    for kernel, bias in dense:
        hidden = jax.nn.relu(hidden @ kernel + bias)
    if architecture == "cnn":
        hidden = hidden.reshape(len(images), side, width, -1)
        for place, (kernel, bias) in enumerate(decoder[1:], 1):
            hidden = jax.lax.conv_transpose(hidden, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                            transpose_kernel=True) + bias
            hidden = jax.nn.relu(hidden) if place < num_layers else hidden
        logits = hidden
    else:
        logits = (hidden @ decoder[-1][0] + decoder[-1][1]).reshape(images.shape)
    rate = 0.5 * jnp.sum(mean**2 + stddev**2 - 1 - 2 * log_scale, axis=1)
    return rate, jnp.sum(jax.nn.softplus(logits) - images * logits, axis=(1, 2, 3))


def _step(state, images, rows, key, number, *, config):
    weights, first, second = state
    images = images[rows].astype(jnp.float32) / 255
    noise = jax.random.normal(jax.random.fold_in(key, number), (len(rows), config.latent_dim))

    def loss(weights):
        rate, distortion = terms(weights, images, noise, config.architecture, config.num_layers)
        return jnp.mean(distortion + config.beta * rate), jnp.stack([rate.mean(), distortion.mean()])

    gradients, metrics = jax.grad(loss, has_aux=True)(weights)
    first = [0.9 * moment + 0.1 * gradient for moment, gradient in zip(first, gradients)]
    second = [0.999 * moment + 0.001 * gradient**2 for moment, gradient in zip(second, gradients)]
    count = number + 1.0
    rate = config.learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    weights = [weight - rate * one / (jnp.sqrt(two) + 1e-7) for weight, one, two in zip(weights, first, second)]
    return (weights, first, second), metrics
