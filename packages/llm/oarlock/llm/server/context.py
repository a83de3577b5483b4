"""What the endpoints of a server share."""

import dataclasses
import time

from oarlock.llm.engine.service import Service
from oarlock.llm.server.errors import APIError
from oarlock.llm.server.gate import Gate
from oarlock.llm.server.limits import Limits
from oarlock.llm.server.metrics import Metrics
from oarlock.llm.server.prompts import Prompts
from oarlock.llm.server.tokens import TokenTexts
from oarlock.llm.server.tools.styles import ToolStyle


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One model behind one server.

    Args:
        service: the model.
        limits: of the server.
        gate: who may use the engine.
        metrics: of the server.
        prompts: of the model.
        token_texts: how tokens are shown with their log-probabilities.
        tool_style: how the model writes its calls; None if it makes none.
        created: when the server started, Unix time.
    """

    service: Service
    limits: Limits
    gate: Gate
    metrics: Metrics
    prompts: Prompts
    token_texts: TokenTexts
    tool_style: ToolStyle | None
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    @property
    def fingerprint(self) -> str:
        """Of what may change results beside the seed."""
        about = self.service.about
        return f"oarlock-{about.family}-{about.parameters}-{about.weights}"

    def adapter(self, model: str) -> str | None:
        """The adapter that a request's ``model`` names; None for the model itself.

        Raises:
            APIError: 404, it is neither.
        """
        about = self.service.about
        if model == about.name:
            return None
        if model in about.adapters:
            return model
        raise APIError(
            404,
            f"The model {model!r} does not exist here; there are {', '.join((about.name, *about.adapters))}.",
            param="model",
            code="model_not_found",
        )
