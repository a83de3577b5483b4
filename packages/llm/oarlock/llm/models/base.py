"""What every language model can do, whatever its architecture."""

import numbers
from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from oarlock.native.masks import Mask
from paddle import nn

from oarlock.llm.models import common, masking
from oarlock.llm.models.config import ModelConfig

IGNORED = -100  # a target that leaves its position out of the loss


class LanguageModel(nn.Layer):
    """Base of the models: loss, reference decoding, size.

    A model defines ``forward(tokens, cache=None) -> logits``, ``new_cache()`` and
    ``init_weights(seed)``. With a cache, ``tokens`` continue what the cache has seen.

    Tokens of a wrong shape or dtype, or none, are a ValueError everywhere. Ids outside the
    vocabulary are one on the CPU, where looking costs microseconds, and in ``generate`` on any
    device; a training step on a GPU does not wait for that.
    """

    #: Whether ``attend`` takes masks; not where attention has a bias of its own, or there is none.
    takes_masks = False

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        #: Of each layer, as ``attend`` set them; None for plain causal attention.
        self.attention_masks: tuple[Mask, ...] | None = None

    def attend(self, masks: Mask | Sequence[Mask] | None) -> None:
        """Set what attention sees; what it does not see costs no time in training.

        >>> from oarlock.native import masks
        >>> local = masks.sliding_window(4096, 256)
        >>> model.attend([local, local, local, masks.causal()])

        Kernels of ``oarlock.native.attention`` compute whole sequences of a mask's length on a CPU.
        Shorter texts and cached ones, as in ``generate``, see the same through dense attention.

        Args:
            masks: causal masks, of one layer each, or one for all; None for all earlier tokens.

        Raises:
            ValueError: a mask is not causal, their number is not that of the layers, or the model
                takes none.
        """
        if masks is not None and not self.takes_masks:
            raise ValueError(
                f"{type(self).__name__} takes no masks: its attention has a bias of its own, or it "
                "has no attention."
            )
        if masks is not None and getattr(self.config, "window", None) is not None:
            raise ValueError("masks cannot be given to a model with a window of its own.")
        self.attention_masks = masking.of_layers(masks, getattr(self.config, "num_layers", 0))

    def attention_biases(
        self, T: int, S: int, dtype: paddle.dtype
    ) -> list[paddle.Tensor | Mask | None]:
        """For each layer, what ``common.attention`` takes as bias for the last T of S positions."""
        if self.attention_masks is None:
            bias = common.causal_bias(T, S, dtype, getattr(self.config, "window", None))
            return [bias] * self.config.num_layers  # type: ignore[attr-defined]
        return masking.biases(self.attention_masks, T, S, dtype)

    def loss(self, tokens: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """Mean cross-entropy of the next tokens.

        Args:
            tokens: [B, T] int64.
            targets: [B, T] int64, the token after each; -100 leaves a position out.

        Returns:
            Scalar, nats.
        """
        return cross_entropy(self(tokens), targets)

    @paddle.no_grad()
    def generate(
        self,
        tokens: paddle.Tensor,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        stop_token: int | None = None,
        seed: int = 0,
        use_cache: bool = True,
    ) -> paddle.Tensor:
        """Continue ``tokens`` one by one: simple reference decoding.

        Args:
            tokens: prompts [B, T] int64, T >= 1, ids of the vocabulary.
            max_new_tokens: number of tokens to add at most.
            temperature: 0 takes the most probable token; above, sample from
                softmax(logits / temperature).
            top_k: sample among the k most probable tokens only; None among all.
            stop_token: a row that produced it is filled with it, and the decoding ends when all
                rows have.
            seed: of the sampling, an integer, 0 or above.
            use_cache: False computes everything again for each token.

        Returns:
            The prompts and what follows, [B, T + new], new <= max_new_tokens.

        Raises:
            ValueError: an argument is out of range, or the text would outgrow the model.
        """
        B, T = common.check_tokens(tokens, self.config.vocab_size)
        common.check_ids(tokens, self.config.vocab_size)  # on any device
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be 0 or more, got {max_new_tokens}.")
        if temperature < 0:
            raise ValueError(f"temperature must be 0 or more, got {temperature}.")
        if top_k is not None and not 1 <= top_k <= self.config.vocab_size:
            raise ValueError(f"top_k must be in 1..{self.config.vocab_size}, got {top_k}.")
        limit = getattr(self.config, "max_length", None)
        if limit is not None and T + max_new_tokens > limit:
            raise ValueError(
                f"max_new_tokens must be at most max_length - T = {limit} - {T}, "
                f"got {max_new_tokens}."
            )
        rng = np.random.default_rng(check_seed(seed))
        was_training, finished = self.training, np.zeros(B, dtype=bool)
        cache = self.new_cache() if use_cache else None
        self.eval()
        new = tokens
        for _ in range(max_new_tokens):
            logits_BV = self(new if use_cache else tokens, cache)[:, -1].astype("float32").numpy()
            chosen = _choose(logits_BV, temperature, top_k, rng)
            if stop_token is not None:
                chosen = np.where(finished, stop_token, chosen)
                finished |= chosen == stop_token
            new = paddle.to_tensor(chosen.reshape(B, 1), dtype="int64")
            tokens = paddle.concat([tokens, new], axis=1)
            if finished.all():
                break
        if was_training:
            self.train()
        return tokens

    def num_parameters(self) -> int:
        """Number of parameters; a shared one counts once."""
        return sum(int(np.prod(parameter.shape)) for parameter in self.parameters())


def cross_entropy(logits_BTV: paddle.Tensor, targets_BT: paddle.Tensor) -> paddle.Tensor:
    """Mean cross-entropy in nats over the targets that are not -100; NaN if there are none."""
    logits_RV, targets_R = logits_BTV.reshape([-1, logits_BTV.shape[-1]]), targets_BT.reshape([-1])
    losses_R1 = F.cross_entropy(logits_RV, targets_R, ignore_index=IGNORED, reduction="none")
    # Paddle's own mean counts ignored targets when their number is negative.
    return losses_R1.sum() / (targets_R != IGNORED).astype(losses_R1.dtype).sum()


def check_seed(seed: int) -> int:
    """The seed, if it is an integer, 0 or above."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed must be an integer, 0 or above, got {seed!r}.")
    return int(seed)


def _choose(
    logits_BV: np.ndarray, temperature: float, top_k: int | None, rng: np.random.Generator
) -> np.ndarray:
    if temperature == 0:
        return logits_BV.argmax(-1)
    scores = logits_BV / temperature
    if top_k is not None:
        smallest = np.partition(scores, -top_k, axis=-1)[:, -top_k, None]
        scores = np.where(scores < smallest, -np.inf, scores)
    # Gumbel's trick: the argmax of log p + Gumbel noise is a sample from p.
    return (scores + rng.gumbel(size=scores.shape)).argmax(-1)


class Initializer:
    """Seeded normal initialisation of parameters, in the order of the calls.

    Without a seed nothing is drawn: for weights that are about to be read, which spares seconds a
    thousand million parameters.
    """

    def __init__(self, seed: int | None):
        self._rng = None if seed is None else np.random.default_rng(check_seed(seed))

    def normal(self, parameter: paddle.Tensor, std: float) -> None:
        """Fill with a normal distribution of mean 0."""
        if self._rng is None:
            return
        values = self._rng.standard_normal(parameter.shape, dtype=np.float32)
        parameter.set_value((values * np.float32(std)).astype("float32"))

    def uniform(self, parameter: paddle.Tensor, bound: float) -> None:
        """Fill with a uniform distribution between -bound and bound."""
        if self._rng is None:
            return
        parameter.set_value(self._rng.uniform(-bound, bound, parameter.shape).astype("float32"))
