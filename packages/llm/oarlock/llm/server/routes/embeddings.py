"""/v1/embeddings."""

import asyncio
import base64

import numpy as np
from fastapi import APIRouter, Request

from oarlock.llm.engine.service import Failed
from oarlock.llm.server import record
from oarlock.llm.server.connection import while_there
from oarlock.llm.server.context import Context
from oarlock.llm.server.errors import bad_request, failed, timed_out
from oarlock.llm.server.routes.common import ALL, check_texts, prompts_of
from oarlock.llm.server.sampling import length
from oarlock.llm.server.schemas.embeddings import (
    Embedding,
    EmbeddingAnswer,
    EmbeddingRequest,
    EmbeddingUsage,
)


def router(context: Context) -> APIRouter:
    """The endpoint of ``context``'s model."""
    routes = APIRouter(tags=["embeddings"])

    @routes.post("/v1/embeddings", responses=ALL)
    async def create_embeddings(body: EmbeddingRequest, http: Request) -> EmbeddingAnswer:
        """Turn texts into vectors of length 1: means of the last hidden states over their tokens."""
        if context.adapter(body.model) is not None:
            raise bad_request("Adapters do not embed: name the model.", param="model")
        prompts, _ = await prompts_of(context, body.input, "input")
        check_texts(context, len(prompts), "input")
        for prompt in prompts:
            length(
                prompt_tokens=len(prompt),
                asked=0,
                max_length=context.service.about.max_length,
                limits=context.limits,
                param="input",
            )
        vectors = await while_there(http.receive, _embed(context, prompts))
        if body.dimensions not in (None, vectors.shape[1]):
            raise bad_request(
                f"dimensions must be {vectors.shape[1]}, the model's own, got {body.dimensions}.",
                param="dimensions",
            )
        total = sum(map(len, prompts))
        record.of(http.scope).prompt_tokens = total
        context.metrics.prompt_tokens.inc(total)
        as_base64 = body.encoding_format == "base64"
        data = [
            Embedding(index=index, embedding=_base64(vector) if as_base64 else vector.tolist())
            for index, vector in enumerate(vectors)
        ]
        usage = EmbeddingUsage(prompt_tokens=total, total_tokens=total)
        return EmbeddingAnswer(model=body.model, data=data, usage=usage)

    return routes


async def _embed(context: Context, prompts: list[tuple[int, ...]]) -> np.ndarray:
    seconds = context.limits.request_s
    try:
        async with asyncio.timeout(seconds):
            await context.gate.enter()
            try:
                return await context.service.embed(prompts)
            finally:
                context.gate.leave()
    except TimeoutError as error:
        raise timed_out(
            f"The request took longer than {seconds:g} s: embed fewer texts."
        ) from error
    except ValueError as error:
        raise bad_request(str(error), param="input", code="invalid_value") from error
    except Failed as error:
        raise failed(str(error)) from error


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
