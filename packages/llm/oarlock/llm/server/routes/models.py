"""/v1/models: the model and its adapters."""

from fastapi import APIRouter

from oarlock.llm.server.context import Context
from oarlock.llm.server.routes.common import refusals
from oarlock.llm.server.schemas.models import Model, ModelList


def router(context: Context) -> APIRouter:
    """The endpoints of ``context``'s model."""
    routes = APIRouter(tags=["models"])

    def describe(name: str) -> Model:
        about = context.service.about
        return Model(
            id=name,
            created=context.created,
            owned_by="oarlock",
            root=about.name,
            parent=None if name == about.name else about.name,
            max_model_len=about.max_length,
        )

    @routes.get("/v1/models", responses=refusals(401))
    async def list_models() -> ModelList:
        """The model, then its adapters."""
        about = context.service.about
        return ModelList(data=[describe(name) for name in (about.name, *about.adapters)])

    @routes.get("/v1/models/{model:path}", responses=refusals(401, 404))
    async def get_model(model: str) -> Model:
        """One of them."""
        context.adapter(model)
        return describe(model)

    return routes
