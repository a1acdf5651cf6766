"""The same training written plainly in PyTorch, not compiled."""

import os

import numpy as np
import torch
from torch import nn


class Training:
    """A beta-VAE trained from given weights.

    Args:
        weights: kernel and bias of each layer as the Keras model holds them: hidden layers of the encoder, its two
            heads, layers of the decoder.
        images: [num, height, width, channels] uint8.
        config: the run's vae_rd.config.Config.
    """

    def __init__(self, weights: list[np.ndarray], images: np.ndarray, config):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.manual_seed(config.seed)
        self._config, self._images = config, torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.model = Model(weights, images.shape[1:], config)
        self._optimizer = torch.optim.Adam(self.model.parameters(), config.learning_rate, fused=True)

    def train(self, batches: np.ndarray, first_step: int) -> np.ndarray:
        """Runs the steps of `batches` [steps, batch]; returns mean rate and distortion [steps, 2]."""
        trace = []
        for rows in torch.from_numpy(batches).long():
            images = self._images[rows].float() / 255
            rate, distortion = self.model(images, torch.randn(len(rows), self._config.latent_dim))
            self._optimizer.zero_grad()
            (distortion + self._config.beta * rate).mean().backward()
            self._optimizer.step()
            trace.append(torch.stack([rate.detach().mean(), distortion.detach().mean()]))
        return torch.stack(trace).numpy()


class Model(nn.Module):
    """Encoder and decoder; calling it gives rate and distortion [batch] of images [batch, channels, height, width]."""

    def __init__(self, weights: list[np.ndarray], image_shape: tuple[int, int, int], config):
        super().__init__()
        count, cnn = config.num_layers, config.architecture == "cnn"
        pairs = list(zip(weights[::2], weights[1::2]))
        side = tuple(size // 2**count for size in image_shape[:2])
        inner = (*side, config.channels) if cnn else image_shape  # what is flattened: Keras's order of values to ours
        make = _convolution if cnn else _dense
        hidden = [make(*pair) for pair in pairs[:count]]
        if not cnn:
            hidden[0] = _dense(_rows_reordered(pairs[0][0], inner), pairs[0][1])
        heads = [(_rows_reordered(kernel, inner) if cnn else kernel, bias) for kernel, bias in pairs[count:count + 2]]
        self.encoder = nn.Sequential(*([] if cnn else [nn.Flatten()]), *_with_relu(hidden), nn.ReLU(),
                                     *([nn.Flatten()] if cnn else []))
        self.mean, self.log_scale = (_dense(*head) for head in heads)
        decoder = pairs[count + 2:]
        wide = decoder[0] if cnn else decoder[-1]  # the layer whose outputs become an image
        wide = _dense(_rows_reordered(wide[0].T, inner).T, _rows_reordered(wide[1], inner))
        if cnn:
            layers = [wide, nn.ReLU(), nn.Unflatten(1, (config.channels, *side)),
                      *_with_relu([_transposed(*pair) for pair in decoder[1:]])]
        else:
            layers = [*_with_relu([*(_dense(*pair) for pair in decoder[:-1]), wide]),
                      nn.Unflatten(1, (image_shape[2], *image_shape[:2]))]
        self.decoder = nn.Sequential(*layers)

    def forward(self, images, noise):
        """Rate and distortion [batch] in nats per image."""
        hidden = self.encoder(images)
        mean, log_scale = self.mean(hidden), self.log_scale(hidden)
        stddev = torch.exp(log_scale)
        logits = self.decoder(mean + stddev * noise)
        rate = 0.5 * (mean**2 + stddev**2 - 1 - 2 * log_scale).sum(1)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
        return rate, losses.sum((1, 2, 3))


def _with_relu(layers: list[nn.Module]) -> list[nn.Module]:
    """The layers with a ReLU between each two of them."""
    return [part for layer in layers for part in (nn.ReLU(), layer)][1:]


def _rows_reordered(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """[height * width * channels, ...] as [channels * height * width, ...]."""
    return np.moveaxis(values.reshape(*shape, -1), 2, 0).reshape(values.shape)


def _filled(layer: nn.Module, kernel: np.ndarray, bias: np.ndarray) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def _dense(kernel: np.ndarray, bias: np.ndarray) -> nn.Module:
    return _filled(nn.Linear(*kernel.shape), kernel.T, bias)


def _convolution(kernel: np.ndarray, bias: np.ndarray) -> nn.Module:
    return _filled(nn.Conv2d(*kernel.shape[2:], 4, 2, 1), kernel.transpose(3, 2, 0, 1), bias)


def _transposed(kernel: np.ndarray, bias: np.ndarray) -> nn.Module:
    return _filled(nn.ConvTranspose2d(*kernel.shape[:1:-1], 4, 2, 1), kernel.transpose(3, 2, 0, 1), bias)
