"""A column: models that differ only in beta and seed, their weights stacked along a leading axis and trained together.

A column of one is the single run; there is no second trainer. Members that are one training (conditioning=beta, equal
but for beta) share one set of weights, which is trained once and evaluated at the beta of each. The members'
computation is written once, in `VAE.terms`: each member runs it with its own slice of the stacked weights, put in place
by a Keras StatelessScope.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_rd import model
from vae_rd.catalogue import EVALUATION_BATCH
from vae_rd.config import STACKABLE_FIELDS, Config, ConfigError
from vae_rd.datasets import random_streams, splits
from vae_rd.storage import checkpoints, runs

_NOISE_STREAM, _BINARIZATION_STREAM, _BETA_STREAM = 0, 1, 2


class Evaluated(NamedTuple):
    """Values per member and image of one partition, in the partition's order."""

    rate: np.ndarray  # [members, num], nats per image
    distortion: np.ndarray  # [members, num], nats per image
    mean: np.ndarray  # [members, num, latent_dim], of the posterior
    stddev: np.ndarray  # [members, num, latent_dim], of the posterior
    log_posterior: np.ndarray  # [members, num], log q(z|x) at the image's code, nats
    log_prior: np.ndarray  # [members, num], log p(z) at the image's code, nats
    mean_squared_error: np.ndarray  # [members, num], of the mean picture at the code, over pixels and channels


class Column:
    """Members trained as one program.

    Args:
        configs: one Config per member; they differ in STACKABLE_FIELDS only.
        images: the training images, [num, height, width, channels] uint8, kept as they are.
        strategy: a `tf.distribute` strategy; weights are mirrored, each batch is split over the replicas.
        jit: compile each replica's forward and backward pass by XLA.
        stacked: run the members as batched products, not one after the other: for GPUs, where launching kernels takes
            most of the time (on CPU both cost the same; convolutions have no batched form).
    """

    def __init__(self, configs: list[Config], images: np.ndarray, *, strategy: tf.distribute.Strategy, jit: bool,
                 stacked: bool):
        self.configs, self.strategy, self._stacked = configs, strategy, stacked
        self.shared = configs[0]
        _check_configs(configs, strategy.num_replicas_in_sync)
        self.conditioned = self.shared.conditioning == "beta"
        self.seeds = sorted({config.seed for config in configs})
        # Each member's index on the weights' leading axis; members of one training share a slot.
        self.slots = ([self.seeds.index(config.seed) for config in configs] if self.conditioned
                       else list(range(len(configs))))
        self._seed_of_slot = list(range(len(self.seeds))) if self.conditioned else [
            self.seeds.index(config.seed) for config in configs]
        self.template = model.build(self.shared, images.shape[1:], len(images))
        self.template.adapt(images)
        self.weight_names = list(self.template.named_weights())
        self.beta = tf.constant([config.beta for config in configs], self.template.variable_dtype)
        # A variable, because TensorFlow has no GPU kernel that gathers uint8 from a tensor; a copy on every device of
        # this process. Several workers make it outside the scope, which would broadcast it: collectives have no uint8.
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        with contextlib.nullcontext() if several else strategy.scope():
            self._images = tf.Variable(images, trainable=False)
            self._kept = [(weight, tf.Variable(weight.numpy(), trainable=False))  # likewise what a prior keeps
                          for weight in self.template.prior_layer.non_trainable_variables]
        with strategy.scope():
            self.weights = [keras.Variable(value, name=name, dtype=value.dtype)
                            for name, value in self._initial_weights(images).items()]
            self.optimizer = keras.optimizers.Adam(self.shared.learning_rate)
            self.optimizer.build(self.weights)
        self._jit, alone = jit, strategy.num_replicas_in_sync == 1
        self._compiled_gradients = self._compiled(self._gradients_of_batch)
        self._update = self._compiled(self._update_compiled) if alone else self._update_over_replicas
        self._compiled_evaluation = self._compiled(self._evaluate_batch)
        batches = tf.TensorSpec([None, len(self.seeds), self.shared.batch_size], tf.int32)
        self.program = tf.function(self._steps, [batches, tf.TensorSpec([], tf.int32)],  # traced once, for any number
                                   autograph=False)

    def _compiled(self, function):
        """The function as one program, without AutoGraph, whose work is most of the start of a small training."""
        return tf.function(function, jit_compile=self._jit, autograph=False)

    def _initial_weights(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Weights [slots, ...], each initialised as if it were alone (with its own fans and seed)."""
        alone = [model.build(self.shared.replace(seed=seed), images.shape[1:], len(images)) for seed in self.seeds]
        for single in alone:
            single.adapt(images)
        return {name: np.stack([alone[seed].named_weights()[name].numpy() for seed in self._seed_of_slot])
                for name in self.weight_names}

    # Training

    def train(self, first_step: int, num_steps: int) -> np.ndarray:
        """Trains `num_steps` steps from `first_step`; returns batch means of rate, distortion [steps, 2, members]."""
        return self.program(self.batches(first_step, num_steps), tf.constant(first_step)).numpy()

    def _steps(self, batches, first_step):
        """The steps of `batches` [steps, seeds, batch], as one graph."""
        def step(number, trace):
            parts = self.strategy.run(self._replica_step, (batches[number], first_step + number))
            return number + 1, trace.write(number, self.strategy.reduce("SUM", parts, axis=None))

        num_steps = tf.shape(batches)[0]
        trace = tf.TensorArray(self.template.variable_dtype, num_steps, element_shape=[2, len(self._seed_of_slot)])
        _, trace = tf.while_loop(lambda number, trace: number < num_steps, step, (0, trace))
        return tf.gather(trace.stack(), self.slots, axis=2) if self.conditioned else trace.stack()

    def batches(self, first_step: int, num_steps: int) -> tf.Tensor:
        """Rows of the training images for each seed: [steps, seeds, batch] int32."""
        rows = [random_streams.batch_indices(self._images.shape[0], self.shared.batch_size, seed, first_step, num_steps)
                for seed in self.seeds]
        return tf.constant(np.stack(rows, axis=1))

    def _replica_step(self, batch, step):
        """One replica's part: its slice of the batch of every seed, [seeds, batch / replicas]."""
        context = tf.distribute.get_replica_context()
        width = self.shared.batch_size // context.num_replicas_in_sync
        first = context.replica_id_in_sync_group * width
        images = tf.gather(self._images, batch[:, first:first + width])
        noise = tf.stack([self._noise(seed, step) for seed in self.seeds])[:, first:first + width]
        if self.shared.binarization == "dynamic":
            uniform = tf.stack([self._uniform(seed, step) for seed in self.seeds])[:, first:first + width]
            images = tf.where(uniform * 255 < tf.cast(images, uniform.dtype), tf.uint8.max, tf.uint8.min)
        beta = None
        if self.conditioned:
            beta = tf.stack([self._betas(seed, step) for seed in self.seeds])[:, first:first + width]
        return self._update(images, noise, beta)

    # Noise is drawn for the global batch and sliced, so that it does not depend on the number of replicas, and
    # outside the compiled part: XLA's float draws differ from the graph's for the same seed.
    def _noise(self, seed, step):
        return tf.random.stateless_normal([self.shared.batch_size, self.shared.latent_dim],
                                          _fold(seed, step, _NOISE_STREAM), dtype=self.template.variable_dtype)

    def _uniform(self, seed, step):
        return tf.random.stateless_uniform([self.shared.batch_size, *self._images.shape[1:]],
                                           _fold(seed, step, _BINARIZATION_STREAM), dtype=self.template.variable_dtype)

    def _betas(self, seed, step):
        """A beta for each image of a step, log-uniform over the range; exactly the bound if both are equal."""
        low, high = self.shared.beta_bounds
        uniform = tf.random.stateless_uniform([self.shared.batch_size], _fold(seed, step, _BETA_STREAM),
                                              dtype=self.template.variable_dtype)
        return low * (high / low) ** uniform

    def _update_compiled(self, images, noise, beta):
        """Gradient and optimizer in one compiled program: nothing to sum over replicas between them."""
        gradients, sums = self._gradients_of_batch(images, noise, beta)
        self.optimizer.apply_gradients(zip(gradients, self.weights))
        return sums

    def _update_over_replicas(self, images, noise, beta):
        gradients, sums = self._compiled_gradients(images, noise, beta)
        self.optimizer.apply_gradients(zip(gradients, self.weights))
        return sums

    def _gradients_of_batch(self, images, noise, beta):
        """Gradients of this replica's share of the mean objective; its share of mean rate and distortion, [2, slots].

        `beta` [seeds, batch] is what conditioned networks are trained at; None: each member's own beta.
        """
        seeds = self._seed_of_slot
        gradients, rate, distortion = self._map_members(
            self._member_gradients, [weight.value for weight in self.weights],
            [images[seed] for seed in seeds], [noise[seed] for seed in seeds],
            tf.unstack(self.beta) if beta is None else [beta[seed] for seed in seeds])
        return gradients, tf.stack([rate, distortion])

    def _member_gradients(self, weights, images, noise, beta):
        """One member's gradients, and its share of the mean rate and distortion.

        The tape is inside the mapped function: around it, the gradient of vectorized_map makes the batch a constant of
        the compiled program, which is then compiled anew at every step.
        """
        with tf.GradientTape() as tape:
            tape.watch(weights)
            terms = self.template.terms(_unit_interval(images, noise.dtype), noise, beta)
            # The optimizer sums over replicas. Members do not interact: each has the mean of its own objective.
            loss, rate, distortion = (tf.reduce_sum(values) / self.shared.batch_size
                                      for values in (terms.objective, terms.rate, terms.distortion))
        return tape.gradient(loss, weights), rate, distortion

    def _map_members(self, function, values, *inputs):
        """function(weights, *inputs) of each member with its weights in place, the outputs stacked over members."""
        def member(arguments):
            weights, its_inputs = arguments
            kept = [(weight, tf.convert_to_tensor(copy)) for weight, copy in self._kept]
            own_weights = list(zip(self.template.named_weights().values(), weights))
            with keras.StatelessScope(state_mapping=own_weights + kept):
                return function(weights, *its_inputs)

        if self._stacked:
            stacked_inputs = tuple(tf.stack(parts) for parts in inputs)
            return tf.vectorized_map(member, (values, stacked_inputs), fallback_to_while_loop=False)
        slices = zip(*(tf.unstack(value) for value in values))
        outputs = [member((list(weights), its_inputs)) for weights, its_inputs in zip(slices, zip(*inputs))]
        return tf.nest.map_structure(lambda *parts: tf.stack(parts), *outputs)

    # Evaluation

    def evaluate(self, partition: splits.Partition, report: Callable[[int], None] = lambda done: None) -> Evaluated:
        """Rate, distortion and posterior of every image, ragged tail included, one posterior sample per image.

        Args:
            partition: any images; their `index` keys the noise.
            report: called with the number of images done after each batch.
        """
        noise = random_streams.evaluation_noise(partition.index, self.shared.latent_dim)
        batches = []
        for start in range(0, len(partition.index), EVALUATION_BATCH):
            images, draws = (values[start:start + EVALUATION_BATCH] for values in (partition.images, noise))
            parts = self._compiled_evaluation(tf.constant(_padded(images)),
                                              tf.constant(_padded(draws), self.template.variable_dtype))
            batches.append([part.numpy()[:, :len(images)] for part in parts])
            report(len(images))
        return Evaluated(*(np.concatenate(parts, axis=1) for parts in zip(*batches)))

    def _evaluate_batch(self, images, noise):
        members = len(self.configs)
        values = [weight.value for weight in self.weights]
        if self.conditioned:
            values = [tf.gather(value, self.slots) for value in values]
        return self._map_members(self._evaluate_member, values, [images] * members, [noise] * members,
                                 tf.unstack(self.beta))

    def _evaluate_member(self, weights, images, noise, beta):
        images = _unit_interval(images, noise.dtype)
        coded = self.template.rate_and_distortion(images, noise, beta)
        errors = images - self.template.likelihood_layer.picture(coded.parameters)
        return Evaluated(coded.rate, coded.distortion, coded.posterior.mean(), coded.posterior.stddev(),
                         coded.log_posterior, self.template.prior(images).log_prob(coded.codes),
                         tf.reduce_mean(tf.square(errors), [1, 2, 3]))

    # State

    def state(self) -> dict[str, np.ndarray]:
        """Weights and Adam's moments, [slots, ...] each, by name, all copied to the host."""
        return {name: variable.numpy() for name, variable in self._variables().items()}

    def restore(self, state: dict[str, np.ndarray], step: int) -> None:
        """Restores what `state` returned; the optimizer's step count is the column's step.

        Raises:
            runs.RunError: if weights or moments are missing; other entries are ignored.
        """
        _assign(self._variables(), state)
        self.optimizer.iterations.assign(step)

    def set_weights(self, state: dict[str, np.ndarray]) -> None:
        """Puts weights [members, ...] in place, to be evaluated, and leaves the optimizer alone.

        With conditioning=beta each member gets weights of its own (their best steps may differ), and the column cannot
        be trained afterwards.

        Raises:
            runs.RunError: if a weight is missing.
        """
        if self.conditioned:
            self.slots = list(range(len(self.configs)))
            with self.strategy.scope():
                self.weights = [keras.Variable(np.zeros((len(self.configs), *weight.shape[1:])), name=name,
                                               dtype=weight.dtype)
                                for name, weight in zip(self.weight_names, self.weights)]
            self._compiled_evaluation = self._compiled(self._evaluate_batch)
        _assign(dict(zip(self.weight_names, self.weights)), state)

    def member_model(self, member: int, weights: dict[str, np.ndarray]) -> model.VAE:
        """A plain single model of a member's Config with these weights."""
        single = model.build(self.configs[member], self.template.image_shape, self.template.num_train)
        single.prior_layer.set_weights(self.template.prior_layer.get_weights())  # what it keeps of the training images
        single.assign_weights(weights)
        return single

    def _variables(self) -> dict[str, keras.Variable]:
        parts = {"": self.weights, "momentum.": self.optimizer._momentums, "velocity.": self.optimizer._velocities}
        return {f"{prefix}{name}": variable for prefix, variables in parts.items()
                for name, variable in zip(self.weight_names, variables)}


def member_state(state: dict[str, np.ndarray], slot: int) -> dict[str, np.ndarray]:
    """The part of a column's state in one slot."""
    return {name: values[slot] for name, values in state.items()}


def stacked_state(states: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The state of a column with these in its slots: the arrays that all of them have."""
    return {name: np.stack([state[name] for state in states]) for name in states[0]
            if all(name in state for state in states)}


def _assign(variables: dict, values: dict[str, np.ndarray]) -> None:
    missing = [name for name in variables if name not in values]
    if missing:
        raise runs.RunError(f"a checkpoint lacks {', '.join(missing)}: it is damaged, or of another version. To start "
                            f"the run again, {checkpoints.FROM_NOTHING}.")
    for name, variable in variables.items():
        variable.assign(values[name])


def _check_configs(configs: list[Config], num_replicas: int) -> None:
    """Raises ConfigError for members that cannot share a program."""
    shared = configs[0]
    if len({config.without(*STACKABLE_FIELDS) for config in configs}) > 1:
        raise ConfigError(f"the members of a column may differ in {' and '.join(STACKABLE_FIELDS)} only; train the "
                         "others as a column of their own.")
    if shared.batch_size % num_replicas:
        raise ConfigError(f"batch_size={shared.batch_size} is not divisible by {num_replicas} replicas: choose a "
                         "multiple, or fewer devices.")
    if shared.rate_terms != "both" and num_replicas > 1:
        raise ConfigError(f"rate_terms={shared.rate_terms} compares all images of a batch, but each of "
                          f"the {num_replicas} replicas sees only its part: train it on one device "
                          "(--strategy=one_device).")


def _fold(seed, step, stream):
    """The seed of a step's draws; on the CPU, where random ops read it: from a GPU it would be copied each step."""
    with tf.device("CPU:0"):
        return tf.random.fold_in(tf.random.fold_in([seed, stream], step), stream)


def _unit_interval(images, dtype):
    return tf.cast(images, dtype) / 255


def _padded(batch: np.ndarray) -> np.ndarray:
    """The batch, its first row repeated up to the full size: one compiled shape serves the ragged tail too."""
    missing = EVALUATION_BATCH - len(batch)
    return np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)]) if missing else batch
