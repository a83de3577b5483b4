"""Quality of a compressed model: loss of each sequence, and the answers that changed."""

from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray

from oarlock.accept.compression.subjects import Batch
from oarlock.llm.models import LanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Over held-out text.

    Args:
        losses: mean of each sequence, nats a token.
        answers: most probable next token at each position.
    """

    losses: NDArray[np.float64]
    answers: NDArray[np.int64]

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    def flips(self, before: "Quality") -> float:
        """Share of positions whose most probable token is another than before."""
        return float((self.answers != before.answers).mean())


@paddle.no_grad()
def probabilities(model: LanguageModel, batches: list[Batch]) -> list[paddle.Tensor]:
    """Of the next token at each position, [B, T, V] a batch."""
    return [F.softmax(model(tokens), axis=-1) for tokens, _ in batches]


@paddle.no_grad()
def quality(
    model: LanguageModel, batches: list[Batch], truth: list[paddle.Tensor] | None = None
) -> Quality:
    """Losses and answers of a model.

    Args:
        model: compressed or not.
        batches: held-out text.
        truth: probabilities that the next tokens were drawn with, where they are known: the losses are
            then expectations over those tokens, which has the same mean and no noise of first order.
    """
    losses, answers = [], []
    for number, (tokens, targets) in enumerate(batches):
        logits = model(tokens)
        if truth is None:
            each = F.cross_entropy(logits, targets.unsqueeze(-1), reduction="none").squeeze(-1)
        else:
            each = -(truth[number] * F.log_softmax(logits, axis=-1)).sum(-1)
        losses.append(each.numpy().astype(np.float64).mean(1))
        answers.append(logits.argmax(-1).numpy().ravel())
    return Quality(losses=np.concatenate(losses), answers=np.concatenate(answers))
