"""The beta-VAE with an MLP once more, in NumPy: forward, backward and Adam, to compare with."""

import numpy as np


class NumpyVae:
    """Arguments: weights in the model's order, kernel and bias of each layer: encoder, two heads, decoder, logits."""

    def __init__(self, weights, num_layers):
        self.weights = [np.array(weight, np.float64) for weight in weights]
        self.num_layers = num_layers
        self.momentum = [np.zeros_like(weight) for weight in self.weights]
        self.velocity = [np.zeros_like(weight) for weight in self.weights]
        self.steps = 0

    def forward(self, images, noise):
        """Rate, distortion, mean, stddev, logits; and the inputs of each layer."""
        layers = list(zip(self.weights[::2], self.weights[1::2]))
        encoder, heads, decoder = layers[:self.num_layers], layers[self.num_layers:self.num_layers + 2], \
            layers[self.num_layers + 2:]
        pixels = images.reshape(len(images), -1).astype(np.float64)
        inputs, hidden = [], pixels
        for kernel, bias in encoder:
            inputs.append(hidden)
            hidden = np.maximum(hidden @ kernel + bias, 0)
        inputs.append(hidden)
        mean, log_scale = (hidden @ kernel + bias for kernel, bias in heads)
        stddev = np.exp(log_scale)
        hidden = mean + stddev * noise
        for kernel, bias in decoder[:-1]:
            inputs.append(hidden)
            hidden = np.maximum(hidden @ kernel + bias, 0)
        inputs.append(hidden)
        logits = hidden @ decoder[-1][0] + decoder[-1][1]
        rate = 0.5 * (mean**2 + stddev**2 - 1 - 2 * log_scale).sum(1)
        distortion = (np.logaddexp(0, logits) - pixels * logits).sum(1)
        return rate, distortion, mean, stddev, logits, inputs

    def gradients(self, images, noise, beta):
        """Of the mean over images of distortion + beta * rate, in the order of the weights."""
        _, _, mean, stddev, logits, inputs = self.forward(images, noise)
        pairs, kernels = [], self.weights[::2]
        signal = (1 / (1 + np.exp(-logits)) - images.reshape(len(images), -1)) / len(images)
        decoder_inputs = inputs[self.num_layers + 1:]
        for place in reversed(range(len(decoder_inputs))):
            pairs.insert(0, (decoder_inputs[place].T @ signal, signal.sum(0)))
            signal = signal @ kernels[self.num_layers + 2 + place].T
            if place:
                signal = signal * (decoder_inputs[place] > 0)
        heads = [signal + beta * mean / len(images), signal * noise * stddev + beta * (stddev**2 - 1) / len(images)]
        hidden = inputs[self.num_layers]
        pairs = [(hidden.T @ head, head.sum(0)) for head in heads] + pairs
        signal = sum(head @ kernels[self.num_layers + number].T for number, head in enumerate(heads))
        for place in reversed(range(self.num_layers)):
            signal = signal * (inputs[place + 1] > 0)
            pairs.insert(0, (inputs[place].T @ signal, signal.sum(0)))
            signal = signal @ kernels[place].T
        return [gradient for pair in pairs for gradient in pair]

    def step(self, images, noise, beta, learning_rate, epsilon=1e-7):
        """One step of Adam (Kingma and Ba 2015, the form of their section 2).

        Keras rounds learning rate and decay rates to float32, even for float64, where it corrects the bias.
        """
        self.steps += 1
        learning_rate, decay, slow_decay = (float(np.float32(value)) for value in (learning_rate, 0.9, 0.999))
        rate = learning_rate * np.sqrt(1 - slow_decay**self.steps) / (1 - decay**self.steps)
        for place, gradient in enumerate(self.gradients(images, noise, beta)):
            self.momentum[place] += 0.1 * (gradient - self.momentum[place])
            self.velocity[place] += 0.001 * (gradient**2 - self.velocity[place])
            self.weights[place] -= rate * self.momentum[place] / (np.sqrt(self.velocity[place]) + epsilon)
