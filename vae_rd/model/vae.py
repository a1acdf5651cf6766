"""The beta-VAE: its distributions, its per-image terms, its objective and its training step."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vae_rd import catalogue
from vae_rd.config import ConfigError
from vae_rd.model import likelihoods, networks, priors
from vae_rd.storage import files


class Coded(NamedTuple):
    """A batch of images, encoded and decoded."""

    rate: tf.Tensor  # [batch], KL(q(z|x), p(z)), nats
    distortion: tf.Tensor  # [batch], -log p(x|z), summed over pixels and channels, nats
    posterior: tfd.Distribution  # q(z|x): batch [batch], event [latent_dim]
    codes: tf.Tensor  # [batch, latent_dim], one sample of each posterior
    log_posterior: tf.Tensor  # [batch], log q(z|x) at the codes, nats
    parameters: tf.Tensor  # [batch, height, width, channels * per pixel], of the likelihood at the codes


class Terms(NamedTuple):
    """The objective of each image of a batch and its parts, in nats per image."""

    rate: tf.Tensor  # [batch], KL(q(z|x), p(z))
    distortion: tf.Tensor  # [batch], -log p(x|z), summed over pixels and channels
    penalty: tf.Tensor  # [batch], what beta multiplies: the rate, or one of its parts if `rate_terms` is not both
    objective: tf.Tensor  # [batch], what is minimised


class InformationTerms(NamedTuple):
    """The two parts of the rate at each code; their sum is log q(z|x) - log p(z)."""

    mutual_information: tf.Tensor  # [batch], log q(z|x) - log q(z)
    marginal_kl: tf.Tensor  # [batch], log q(z) - log p(z)


def objective(distortion: Any, rate: Any, beta: Any) -> Any:
    """The beta-VAE's objective per image, nats (Bozkurt et al. 2021, eq. 2).

    Under `rate_terms`, `rate` is one of its parts.
    """
    return distortion + beta * rate


def log_posterior(posterior: tfd.Distribution, noise: tf.Tensor) -> tf.Tensor:
    """log q(z|x) at z = mean + stddev * noise [..., latent_dim]: [...], nats.

    Computed from the noise, not from z: in single precision, z - mean holds only rounding errors where stddev is tiny
    compared with the mean. A rate computed from those can fall without bound, and training exploits it.
    """
    log_density = -0.5 * (tf.square(noise) + np.log(2 * np.pi)) - tf.math.log(posterior.stddev())
    return tf.reduce_sum(log_density, -1)


def kl_divergence(posterior: tfd.Distribution, prior: tfd.Distribution, codes: tf.Tensor, log_density: tf.Tensor
                  ) -> tf.Tensor:
    """KL(q(z|x), p(z)) per image: in closed form where TFP knows one, else log q - log p at the codes.

    Args:
        codes: samples of the posterior, [..., batch, latent_dim].
        log_density: what `log_posterior` returned for them, [..., batch].
    """
    try:
        return posterior.kl_divergence(prior)
    except NotImplementedError:
        return log_density - prior.log_prob(codes)


@keras.saving.register_keras_serializable("vae_rd")
class VAE(keras.Model):
    """A beta-VAE with diagonal Gaussian posterior.

    Args:
        image_shape: (height, width, channels).
        num_train: size N of the training set; the minibatch estimator of `rate_terms` needs it.
        beta: weight of the rate, in `fit` and `evaluate`; `terms` takes it as an argument. With conditioning="beta" it
            is also the default input of the networks.
        seed: of the initial weights, and of the noise in `fit`.
        The other arguments are the fields of `vae_rd.config.Config`.

    Raises:
        ConfigError: for an unknown network, prior or likelihood; for a network without gates under
            conditioning="beta"; for a prior that overrides leaving_out without keeps_images.
    """

    def __init__(self, *, image_shape, num_train=1, architecture="mlp", num_layers=1, hidden_units=512, channels=64,
                 latent_dim=10, prior="standard_normal", likelihood="bernoulli", beta=1.0, conditioning="none",
                 rate_terms="both", precision="float32", seed=0, **kwargs):
        dtype = "float64" if precision == "float64" else "float32"
        super().__init__(dtype=dtype, **kwargs)
        self._arguments = {"image_shape": tuple(image_shape), "num_train": num_train, "architecture": architecture,
                           "num_layers": num_layers, "hidden_units": hidden_units, "channels": channels,
                           "latent_dim": latent_dim, "prior": prior, "likelihood": likelihood, "beta": beta,
                           "conditioning": conditioning, "rate_terms": rate_terms, "precision": precision,
                           "seed": seed}
        self.latent_dim, self.beta, self.rate_terms, self.num_train = latent_dim, beta, rate_terms, num_train
        self.seed, self.image_shape, self.conditioning = seed, tuple(image_shape), conditioning
        likelihood_class = _chosen("likelihood", likelihood, likelihoods.LIKELIHOODS)
        network = _chosen("architecture", architecture, networks.NETWORKS)(
            image_shape=image_shape, per_pixel=catalogue.LIKELIHOODS[likelihood].per_pixel, num_layers=num_layers,
            width=self._arguments[catalogue.NETWORKS[architecture].width], latent_dim=latent_dim,
            precision=precision, seed=seed, conditioning=conditioning)
        self.encoder, self.decoder = network.encoder(), network.decoder()
        for part in (self.encoder, self.decoder) if conditioning == "beta" else ():
            if not any(isinstance(layer, networks.Gate) for layer in part.layers):
                raise ConfigError(f"architecture must have gates in its {part.name} with conditioning=beta (got "
                                  f"{architecture!r}, with none). Let its hidden layers go through layers.gated.")
        prior_class = _chosen("prior", prior, priors.PRIORS)
        if prior_class.leaving_out is not priors.Prior.leaving_out and not catalogue.PRIORS[prior].keeps_images:
            raise ConfigError(f"keeps_images of the prior {prior!r} must be True, as its class overrides leaving_out "
                              "(got False). Set it in vae_rd.catalogue.PRIORS, or measures leave nothing out.")
        self.prior_layer = prior_class(
            latent_dim, image_shape=image_shape, posterior=self.posterior, num_train=num_train, seed=seed, dtype=dtype)
        self.likelihood_layer = likelihood_class(dtype=dtype)
        self.trackers = {name: keras.metrics.Mean(name) for name in ("rate", "distortion", "objective")}
        self.built = True

    def posterior(self, images: tf.Tensor, beta: tf.Tensor | float | None = None) -> tfd.Distribution:
        """q(z|x) for images [batch, height, width, channels]: batch [batch], event [latent_dim].

        Args:
            images: in [0, 1].
            beta: input of conditioned networks, a number or [batch]; None: the model's own beta.

        Raises:
            ConfigError: for images of whole numbers.
        """
        if np.issubdtype(tf.as_dtype(getattr(images, "dtype", "float32")).as_numpy_dtype, np.integer):
            raise ConfigError(f"images must be numbers in [0, 1] (got {tf.as_dtype(images.dtype).name}). Try "
                              "images / 255.")
        inputs = self._with_log_beta(images, beta, tf.shape(images)[:1])
        mean, log_scale = (tf.cast(head, self.variable_dtype) for head in self.encoder(inputs))
        return tfd.Independent(tfd.Normal(mean, tf.exp(log_scale)), 1)

    def prior(self, images: tf.Tensor | None = None) -> tfd.Distribution:
        """p(z): event [latent_dim]; with images [batch, ...], the prior of their codes, without each image's own.

        Raises:
            ConfigError: if the prior returns no distribution of codes, or several where one is wanted.
        """
        found = self.prior_layer.distribution() if images is None else self.prior_layer.leaving_out(images)
        for_each = images is not None and type(self.prior_layer).leaving_out is not priors.Prior.leaving_out
        if not isinstance(found, tfd.Distribution) or found.event_shape != [self.latent_dim] or not (
                for_each or found.batch_shape.num_elements() in (1, None)):
            raise ConfigError(f"distribution() of the prior {self._arguments['prior']!r} must return a "
                              f"tfd.Distribution of events of shape [{self.latent_dim}], each a code (got {found!r}). "
                              "Try tfd.Independent(..., 1), or tfd.MixtureSameFamily of several.")
        return found

    def adapt(self, images: np.ndarray) -> None:
        """Shows the prior the training images [num, height, width, channels] uint8, before training.

        The exemplar prior keeps some, and the VampPrior starts from some.

        Raises:
            ConfigError: if the images are not of that shape and type, or it keeps images, and would leave out the only
                one.
        """
        if np.shape(images)[1:] != self.image_shape or np.asarray(images).dtype != np.uint8:
            raise ConfigError(f"images must be uint8 of shape [num, {', '.join(map(str, self.image_shape))}] (got "
                              f"{np.asarray(images).dtype} of shape {list(np.shape(images))}). Try those of a "
                              "Partition, before division by 255.")
        prior = self._arguments["prior"]
        if catalogue.PRIORS[prior].keeps_images and len(images) < 2:
            raise ConfigError(f"training images must be 2 or more with prior={prior}, which leaves an image out of its "
                              f"own prior (got {len(images)}). Try a larger split, or another prior.")
        self.prior_layer.adapt(images)

    def likelihood(self, codes: tf.Tensor, beta: tf.Tensor | float | None = None) -> tfd.Distribution:
        """p(x|z) for codes [..., latent_dim]: batch [...], event [height, width, channels]."""
        return self._likelihood(self._decoded(codes, beta))

    def picture(self, codes: tf.Tensor) -> tf.Tensor:
        """The likelihood's mean in [0, 1] at codes [..., latent_dim]: [..., height, width, channels]."""
        return self.likelihood_layer.picture(self._decoded(codes))

    def terms(self, images: tf.Tensor, noise: tf.Tensor, beta: tf.Tensor | float, rows: tf.Tensor | None = None
              ) -> Terms:
        """Rate, distortion and objective of each image.

        Args:
            images: [batch, height, width, channels] in [0, 1]; grey values are allowed, as in the paper.
            noise: [batch, latent_dim], standard normal.
            beta: weight of the rate, and input of conditioned networks: a number, or [batch].
            rows: [batch], which training image each is; None: no image is there twice.
        """
        coded = self.rate_and_distortion(images, noise, beta)
        rate, distortion = coded.rate, coded.distortion
        penalty = rate if self.rate_terms == "both" else getattr(self.information(coded, images, rows), self.rate_terms)
        return Terms(rate, distortion, penalty, objective(distortion, penalty, beta))

    def rate_and_distortion(self, images: tf.Tensor, noise: tf.Tensor, beta: tf.Tensor | float | None = None) -> Coded:
        """Rate [batch], distortion [batch], and what they are made of: all that evaluation needs."""
        posterior = self.posterior(images, beta)
        codes = posterior.mean() + posterior.stddev() * noise
        log_density = log_posterior(posterior, noise)
        rate = kl_divergence(posterior, self.prior(images), codes, log_density)
        parameters = self._decoded(codes, beta)
        return Coded(rate, -self._likelihood(parameters).log_prob(images), posterior, codes, log_density, parameters)

    def information(self, coded: Coded, images: tf.Tensor | None = None, rows: tf.Tensor | None = None
                    ) -> InformationTerms:
        """Minibatch estimate of the two parts of the rate (Esmaeili et al. 2019, eq. 9; B of num_train images)."""
        log_aggregate = minibatch_log_aggregate(coded, self.num_train, rows)
        log_prior = self.prior(images).log_prob(coded.codes)
        return InformationTerms(coded.log_posterior - log_aggregate, log_aggregate - log_prior)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Reconstructions [batch, height, width, channels] in [0, 1]: the picture of the posterior's mean."""
        return self.picture(self.posterior(images).mean())

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of `fit`; the column's own loop runs the same `terms` for each member."""
        with tf.GradientTape() as tape:
            terms = self.terms(images, self._noise(images, self.optimizer.iterations), self.beta)
            loss = tf.reduce_mean(terms.objective)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return self._track(terms)

    def test_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of `evaluate`: metrics are means over images, not over batches.

        The noise is that of step -1 in every batch, not keyed by image: numbers differ a little from those of a run.
        """
        return self._track(self.terms(images, self._noise(images, -1), self.beta))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The trackers that `fit` resets after every epoch."""
        return list(self.trackers.values())

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._arguments)

    def named_weights(self) -> dict[str, keras.Variable]:
        """The trained weights by name: unique, and independent of how many models were built before."""
        parts = {"encoder": self.encoder, "decoder": self.decoder, "prior": self.prior_layer,
                 "likelihood": self.likelihood_layer}
        return {f"{part}.{number}.{weight.name}": weight for part, layer in parts.items()
                for number, weight in enumerate(layer.trainable_variables)}

    def assign_weights(self, values: dict[str, np.ndarray]) -> None:
        """Sets the weights to arrays by name; other entries are ignored, such as the beta of earlier versions.

        Raises:
            FileError: if weights are missing.
        """
        weights = self.named_weights()
        missing = [name for name in weights if name not in values]
        if missing:
            raise files.FileError(f"weights are missing: {', '.join(missing)}. Their file is damaged or of another "
                                  "version: remove the run's folder and train it again.")
        for name, weight in weights.items():
            weight.assign(values[name])

    def load_own_variables(self, store: Any) -> None:
        """Accepts files of earlier versions too, in which beta was a weight; it also stands in their config."""
        if set(store.keys()) != {"0"}:  # the only variable of the model itself was beta
            super().load_own_variables(store)

    def _likelihood(self, parameters):
        """p(x|z) from its parameters; a wrong event shape would broadcast, and count pixels several times."""
        found = self.likelihood_layer.distribution(parameters)
        if not isinstance(found, tfd.Distribution) or not found.event_shape.is_compatible_with(self.image_shape):
            raise ConfigError(f"distribution() of the likelihood {self._arguments['likelihood']!r} must return a "
                              f"tfd.Distribution of events of shape {list(self.image_shape)}, each an image (got "
                              f"{found!r}). Try tfd.Independent(..., 3), of parameters split over the last axis.")
        return found

    def _decoded(self, codes, beta=None):
        """The likelihood's parameters at codes [..., latent_dim]: [..., height, width, channels * per pixel]."""
        flat = tf.reshape(codes, [-1, self.latent_dim])
        parameters = self.decoder(self._with_log_beta(flat, beta, tf.shape(codes)[:-1]))
        shape = tf.concat([tf.shape(codes)[:-1], parameters.shape[1:]], 0)
        return tf.cast(tf.reshape(parameters, shape), self.variable_dtype)

    def _with_log_beta(self, values, beta, shape):
        """What a network is given: values [batch, ...], and if it is conditioned log beta for each of `shape`."""
        if self.conditioning == "none":
            return values
        beta = self.beta if beta is None else beta
        log_beta = tf.math.log(beta if tf.is_tensor(beta) else tf.constant(beta, self.variable_dtype))
        return [tf.convert_to_tensor(values), tf.reshape(tf.broadcast_to(log_beta, shape), [-1, 1])]

    def _noise(self, images, step):
        seed = tf.random.fold_in([self.seed, 0], tf.cast(step, tf.int32))
        return tf.random.stateless_normal([tf.shape(images)[0], self.latent_dim], seed, dtype=self.variable_dtype)

    def _track(self, terms):
        for name, tracker in self.trackers.items():
            tracker.update_state(getattr(terms, name))
        return {name: tracker.result() for name, tracker in self.trackers.items()}


def _chosen(field, name, registry):
    if name not in registry:
        raise ConfigError(f"{field} must be one of {', '.join(registry)} (got {name!r}). A part of your own is entered "
                          "in two tables, in vae_rd.catalogue and beside the classes of its kind in vae_rd.model.")
    return registry[name]


def minibatch_log_aggregate(coded: Coded, num_train: int, rows: tf.Tensor | None = None) -> tf.Tensor:
    """log q(z) at each code, estimated from its own batch (Esmaeili et al. 2019): [batch].

    q(z_b) ~ 1/N q(z_b|x_b) + (N-1)/(N(B-1)) * sum over b' != b of q(z_b|x_b').

    Where a batch crosses from one pass over the training set into the next, it may hold an image twice. The sum stands
    for the N-1 OTHER images: with `rows` [batch] it leaves out copies of x_b, and B-1 is the number of the rest.
    """
    codes = coded.codes
    log_densities = tf.linalg.set_diag(coded.posterior.log_prob(codes[:, tf.newaxis]),  # [code, posterior]
                                       coded.log_posterior)
    size = tf.cast(num_train, log_densities.dtype)
    rows = tf.range(tf.shape(codes)[0]) if rows is None else rows
    other = tf.cast(rows[:, tf.newaxis] != rows, log_densities.dtype)  # [code, posterior]
    log_other = tf.math.log(other * (size - 1) / (size * tf.maximum(tf.reduce_sum(other, 1, keepdims=True), 1)))
    log_weights = tf.linalg.set_diag(log_other, tf.fill(tf.shape(codes)[:1], -tf.math.log(size)))
    return tf.reduce_logsumexp(log_densities + log_weights, axis=1)
