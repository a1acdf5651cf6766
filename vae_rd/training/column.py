"""A column: models that differ only in beta and seed, trained by one compiled program.

On a GPU it trains all members at once, their weights stacked along a leading axis. On a CPU it trains one, and the
members take turns, a call each. A single run is a column of one: there is no separate trainer. Members that are one
training (conditioning=beta, equal but for beta) share one set of weights, which is trained once and evaluated at the
beta of each. The members' computation is written once, in `VAE.terms`: each member runs it with its own weights, put in
place by a Keras StatelessScope.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

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
    """Members trained by one program.

    Args:
        configs: one Config per member; they differ in STACKABLE_FIELDS only.
        images: the training images, [num, height, width, channels] uint8, kept as they are.
        strategy: a `tf.distribute` strategy; weights are mirrored, each batch is split over the replicas.
        jit: compile each replica's forward and backward pass by XLA.
        stacked: train the members at once, as batched products, not in turns: for GPUs, where launching kernels takes
            most of the time (convolutions have no batched form). On a CPU turns are faster: one member's weights stay
            in the cache, and the program of one member compiles sooner.

    Raises:
        ConfigError: for Configs that cannot share a program; when training begins, for an objective that leaves a
            weight without gradient.
    """

    def __init__(self, configs: list[Config], images: np.ndarray, *, strategy: tf.distribute.Strategy, jit: bool,
                 stacked: bool):
        self.configs, self.strategy, self._stacked = configs, strategy, stacked
        self.shared = configs[0]
        _check_configs(configs, strategy.num_replicas_in_sync)
        self.conditioned = self.shared.conditioning == "beta"
        self.seeds = sorted({config.seed for config in configs})
        # Each member's index among the sets of weights; members of one training share a slot.
        self.slots = ([self.seeds.index(config.seed) for config in configs] if self.conditioned
                       else list(range(len(configs))))
        self._seed_of_slot = self.seeds if self.conditioned else [config.seed for config in configs]
        self._take_turns(len(self._seed_of_slot))
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
        initial = self._initial_weights(images)
        with strategy.scope():  # the variables of one turn
            self._weights = [keras.Variable(value[self._turns[0]], name=name, dtype=value.dtype)
                             for name, value in initial.items()]
            self.optimizer = keras.optimizers.Adam(self.shared.learning_rate)
            self.optimizer.build(self._weights)
        self.restore(initial | {f"{kind}.{name}": np.zeros_like(value) for kind in ("momentum", "velocity")
                                for name, value in initial.items()})
        self._jit, alone = jit, strategy.num_replicas_in_sync == 1
        self._compiled_gradients = self._compiled(self._gradients_of_batch)
        self._update = self._compiled(self._update_compiled) if alone else self._update_over_replicas
        self._compiled_evaluation = self._compiled(self._evaluate_batch)
        turn, seeds = self._turns[0], self._seeds_of(self._turns[0])
        self.program = tf.function(self._steps, [  # traced once, for any turn and number of steps
            tf.TensorSpec([None, len(seeds), self.shared.batch_size], tf.int32), tf.TensorSpec([], tf.int32),
            tf.TensorSpec([len(seeds)], tf.int32), tf.TensorSpec([len(turn)], self.beta.dtype)], autograph=False)

    def _take_turns(self, num_slots: int) -> None:
        """Sets which slots are trained together, in one turn, and makes room for the state of each turn."""
        slots = list(range(num_slots))
        self._turns = [slots] if self._stacked else [[slot] for slot in slots]
        self._states: list[dict[str, Any]] = [{} for _ in self._turns]  # by name, [slots of the turn, ...]

    @property
    def num_turns(self) -> int:
        """Parts of the column that are trained one after the other."""
        return len(self._turns)

    def _seeds_of(self, slots: list[int]) -> list[int]:
        """The seeds of slots, each once."""
        return sorted({self._seed_of_slot[slot] for slot in slots})

    def _compiled(self, function):
        """The function as one program, without AutoGraph, whose work is most of the start of a small training."""
        return tf.function(function, jit_compile=self._jit, autograph=False)

    def _initial_weights(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Weights [slots, ...], each initialised as if it were alone (with its own fans and seed)."""
        alone = {seed: model.build(self.shared.replace(seed=seed), images.shape[1:], len(images))
                 for seed in self.seeds}
        for seed, single in alone.items():
            single.adapt(images)
            kept, own = ([weight.numpy() for weight in vae.prior_layer.non_trainable_variables]
                         for vae in (self.template, single))
            if not all(map(np.array_equal, kept, own)):
                raise ConfigError(f"what the prior {self.shared.prior!r} keeps must not depend on the seed, as the "
                                  f"members of a column share it (got others for seed {seed}). Choose them by a fixed "
                                  "seed, or make them trained weights.")
        return {name: np.stack([alone[seed].named_weights()[name].numpy() for seed in self._seed_of_slot])
                for name in self.weight_names}

    # Training

    def train(self, first_step: int, num_steps: int) -> np.ndarray:
        """Trains `num_steps` steps from `first_step`; returns batch means of rate, distortion [steps, 2, members]."""
        batches = self.batches(first_step, num_steps)
        traces = [self._train_turn(slots, state, batches, first_step)
                  for slots, state in zip(self._turns, self._states)]
        return np.concatenate(traces, axis=2)[:, :, self.slots]

    def _train_turn(self, slots, state, batches, first_step):
        """Trains the slots of one turn, and replaces their state."""
        for name, variable in self._variables().items():
            variable.assign(state.pop(name))  # kept here as well, it would take its memory twice
        self.optimizer.iterations.assign(first_step)
        seeds = self._seeds_of(slots)
        trace = self.program(tf.gather(batches, [self.seeds.index(seed) for seed in seeds], axis=1),
                             tf.constant(first_step), tf.constant(seeds), tf.gather(self.beta, slots))
        state.update({name: tf.convert_to_tensor(variable.value) for name, variable in self._variables().items()})
        return trace.numpy()

    def _steps(self, batches, first_step, seeds, beta):
        """The steps of `batches` [steps, seeds, batch], as one graph: [steps, 2, slots]."""
        def step(number, trace):
            parts = self.strategy.run(self._replica_step, (batches[number], first_step + number, seeds, beta))
            return number + 1, trace.write(number, self.strategy.reduce("SUM", parts, axis=None))

        num_steps = tf.shape(batches)[0]
        trace = tf.TensorArray(self.template.variable_dtype, num_steps, element_shape=[2, len(self._turns[0])])
        _, trace = tf.while_loop(lambda number, trace: number < num_steps, step, (0, trace))
        return trace.stack()

    def batches(self, first_step: int, num_steps: int) -> tf.Tensor:
        """Rows of the training images for each seed: [steps, seeds, batch] int32."""
        rows = [random_streams.batch_indices(self._images.shape[0], self.shared.batch_size, seed, first_step, num_steps)
                for seed in self.seeds]
        return tf.constant(np.stack(rows, axis=1))

    def _replica_step(self, batch, step, seeds, beta):
        """One replica's part: its slice of the batch of every seed, [seeds, batch / replicas].

        `beta` [slots] is what the members of the turn are trained at; conditioned networks draw theirs.
        """
        context = tf.distribute.get_replica_context()
        width = self.shared.batch_size // context.num_replicas_in_sync
        first = context.replica_id_in_sync_group * width

        def drawn(draw):
            """A draw for each seed, [seeds, batch / replicas, ...]."""
            return tf.stack([draw(seed, step) for seed in tf.unstack(seeds)])[:, first:first + width]

        rows, noise = batch[:, first:first + width], drawn(self._noise)
        images = tf.gather(self._images, rows)
        if self.shared.binarization == "dynamic":
            uniform = drawn(self._uniform)
            images = tf.where(uniform * 255 < tf.cast(images, uniform.dtype), tf.uint8.max, tf.uint8.min)
        return self._update(rows, images, noise, drawn(self._betas) if self.conditioned else beta)

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

    def _update_compiled(self, rows, images, noise, beta):
        """Gradient and optimizer in one compiled program: nothing to sum over replicas between them."""
        gradients, sums = self._gradients_of_batch(rows, images, noise, beta)
        self.optimizer.apply_gradients(zip(gradients, self._weights))
        return sums

    def _update_over_replicas(self, rows, images, noise, beta):
        gradients, sums = self._compiled_gradients(rows, images, noise, beta)
        self.optimizer.apply_gradients(zip(gradients, self._weights))
        return sums

    def _gradients_of_batch(self, rows, images, noise, beta):
        """Gradients of this replica's share of the mean objective; its share of mean rate and distortion, [2, slots].

        Args:
            rows, images, noise: [seeds, batch, ...].
            beta: of each slot, [slots]; what conditioned networks are trained at, [seeds, batch].
        """
        slots = self._turns[0]  # which are like those of any other turn
        seeds = [self._seeds_of(slots).index(self._seed_of_slot[slot]) for slot in slots]
        of_slots = [tf.gather(values, seeds) for values in (rows, images, noise)]
        gradients, rate, distortion = self._map_members(
            self._member_gradients, [weight.value for weight in self._weights], *of_slots,
            tf.gather(beta, seeds) if self.conditioned else beta)
        return gradients, tf.stack([rate, distortion])

    def _member_gradients(self, weights, rows, images, noise, beta):
        """One member's gradients, and its share of the mean rate and distortion.

        The tape is inside the mapped function: around it, the gradient of vectorized_map makes the batch a constant of
        the compiled program, which is then compiled anew at every step.
        """
        with tf.GradientTape() as tape:
            tape.watch(weights)
            terms = self.template.terms(_unit_interval(images, noise.dtype), noise, beta, rows)
            # The optimizer sums over replicas. Members do not interact: each has the mean of its own objective.
            loss, rate, distortion = (tf.reduce_sum(values) / self.shared.batch_size
                                      for values in (terms.objective, terms.rate, terms.distortion))
        gradients = tape.gradient(loss, weights)
        lost = [name for name, gradient in zip(self.template.named_weights(), gradients) if gradient is None]
        if lost:
            raise ConfigError(f"the objective must depend on all weights (got no gradient for {', '.join(lost)}). "
                              "Build what depends on weights in the method that returns it, not in __init__.")
        return gradients, rate, distortion

    def _map_members(self, function, values, *inputs):
        """function(weights, *inputs) of each member with its weights in place.

        Args:
            function: of one member's weights and inputs; returns arrays, [...] each.
            values: the weights of the members that are computed together, [members, ...]: one if they take turns.
            inputs: [members, ...].

        Returns:
            What the function returned, [members, ...].
        """
        def member(arguments):
            weights, its_inputs = arguments
            kept = [(weight, tf.convert_to_tensor(copy)) for weight, copy in self._kept]
            own_weights = list(zip(self.template.named_weights().values(), weights))
            with keras.StatelessScope(state_mapping=own_weights + kept):
                return function(weights, *its_inputs)

        if self._stacked:
            return tf.vectorized_map(member, (values, inputs), fallback_to_while_loop=False)
        arguments = tf.nest.map_structure(lambda value: tf.squeeze(value, 0), (values, inputs))
        return tf.nest.map_structure(lambda output: output[tf.newaxis], member(arguments))

    # Evaluation

    def evaluate(self, partition: splits.Partition, report: Callable[[int], None] = lambda done: None) -> Evaluated:
        """Rate, distortion and posterior of every image, ragged tail included, one posterior sample per image.

        Args:
            partition: any images; their `index` keys the noise.
            report: called with the number of images done after each batch.
        """
        noise = random_streams.evaluation_noise(partition.index, self.shared.latent_dim)
        together = self._evaluated_together()
        batches = []
        for start in range(0, len(partition.index), EVALUATION_BATCH):
            images, draws = (values[start:start + EVALUATION_BATCH] for values in (partition.images, noise))
            given = tf.constant(_padded(images)), tf.constant(_padded(draws), self.template.variable_dtype)
            found = [self._compiled_evaluation(*members, *given) for members in together]
            batches.append([np.concatenate(parts)[:, :len(images)] for parts in zip(*found)])
            report(len(images))
        return Evaluated(*(np.concatenate(parts, axis=1) for parts in zip(*batches)))

    def _evaluated_together(self):
        """Weights [members, ...] and betas [members] of the members that are evaluated in one call, for each call."""
        if self._stacked:
            (state,) = self._states
            return [([tf.gather(state[name], self.slots) for name in self.weight_names], self.beta)]
        return [([tf.convert_to_tensor(self._states[slot][name]) for name in self.weight_names], beta[tf.newaxis])
                for slot, beta in zip(self.slots, tf.unstack(self.beta))]

    def _evaluate_batch(self, weights, beta, images, noise):
        images, noise = (tf.repeat(values[tf.newaxis], beta.shape[0], 0) for values in (images, noise))
        return self._map_members(self._evaluate_member, weights, images, noise, beta)

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
        return {name: np.concatenate([state[name] for state in self._states]) for name in self._states[0]}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restores what `state` returned.

        Raises:
            runs.RunError: if weights or moments are missing; other entries are ignored.
        """
        self._put(state, list(self._variables()))

    def set_weights(self, state: dict[str, np.ndarray]) -> None:
        """Puts weights [members, ...] in place, to be evaluated, and leaves Adam's moments alone.

        With conditioning=beta each member gets weights of its own (their best steps may differ), and the column cannot
        be trained afterwards.

        Raises:
            runs.RunError: if a weight is missing.
        """
        if self.conditioned:
            self.slots = list(range(len(self.configs)))
            self._take_turns(len(self.configs))
        self._put(state, self.weight_names)

    def _put(self, state: dict[str, np.ndarray], names: list[str]) -> None:
        missing = [name for name in names if name not in state]
        if missing:
            raise runs.RunError(f"a checkpoint lacks {', '.join(missing)}: it is damaged, or of another version. To "
                                f"start the run again, {checkpoints.FROM_NOTHING}.")
        for slots, kept in zip(self._turns, self._states):
            kept.update({name: state[name][slots] for name in names})

    def member_model(self, member: int, weights: dict[str, np.ndarray]) -> model.VAE:
        """A plain single model of a member's Config with these weights."""
        single = model.build(self.configs[member], self.template.image_shape, self.template.num_train)
        single.prior_layer.set_weights(self.template.prior_layer.get_weights())  # what it keeps of the training images
        single.assign_weights(weights)
        return single

    def _variables(self) -> dict[str, keras.Variable]:
        """Weights and moments of one turn."""
        parts = {"": self._weights, "momentum.": self.optimizer._momentums, "velocity.": self.optimizer._velocities}
        return {f"{prefix}{name}": variable for prefix, variables in parts.items()
                for name, variable in zip(self.weight_names, variables)}


def member_state(state: dict[str, np.ndarray], slot: int) -> dict[str, np.ndarray]:
    """The part of a column's state in one slot."""
    return {name: values[slot] for name, values in state.items()}


def stacked_state(states: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The state of a column with these in its slots: the arrays that all of them have."""
    return {name: np.stack([state[name] for state in states]) for name in states[0]
            if all(name in state for state in states)}


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
