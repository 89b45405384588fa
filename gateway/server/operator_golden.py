"""Golden sets on the operators' port: upload, and what the last check of a candidate found."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from gateway.golden import GoldenStore
from gateway.server.errors import Code, Problem


class GoldenUpload(BaseModel):
    """Under which name the file is kept, for `golden.file` of a rollout spec, and how many examples it has."""

    digest: str
    examples: int


def golden_router(store: GoldenStore) -> APIRouter:
    router = APIRouter(tags=["golden sets"])

    @router.put("/golden", response_model=GoldenUpload)
    async def upload(request: Request) -> GoldenUpload:
        """Keep a labelled file: JSON lines `{"inputs": {...}, "label": ...}`, or a NumPy .npz."""
        digest, examples = await store.put(request.stream())
        return GoldenUpload(digest=digest, examples=examples)

    @router.get("/models/{model}/golden/{candidate}")
    async def result(model: str, candidate: Annotated[int, Path(ge=1)]) -> JSONResponse:
        """What the last check of a candidate on its golden set found."""
        return JSONResponse(_found(store.result(model, candidate), model, candidate))

    @router.get("/models/{model}/golden/{candidate}/picture", response_class=Response)
    async def drawing(model: str, candidate: Annotated[int, Path(ge=1)]) -> Response:
        """The same as a picture: accuracy of both versions per class."""
        return Response(_found(store.drawing(model, candidate), model, candidate), media_type="image/svg+xml")

    return router


def _found(value: Any, model: str, candidate: int) -> Any:
    if value is None:
        raise Problem(Code.NOT_FOUND, "NOT_FOUND", f"version {candidate} of {model} was not checked on a golden set")
    return value
