"""Answer GET /v1/models, /health and /metrics."""

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .. import __version__
from ..text.chat import as_turn
from .api_error import APIError
from .parameters import shown
from .service import Service


async def models(service: Service, request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [model_object(service)]})


async def model(service: Service, request: Request) -> Response:
    name = request.path_params["name"]
    if name != service.name:
        message = f"The model {shown(name)} does not exist: this server has {service.name}."
        raise APIError(message, "model", status=404, code="model_not_found")
    return JSONResponse(model_object(service))


def model_object(service: Service) -> dict[str, Any]:
    """Return OpenAI's description of the model, its context as in vLLM, and what the page shows"""
    return {
        "id": service.name,
        "object": "model",
        "created": service.started,
        "owned_by": "numpy_gpt",
        "max_model_len": service.m.config.n_ctx,
        "backend": service.backend,
        "chat_template": service.template and as_turn(service.template, service.m.tokenizer),
        "config": asdict(service.m.config),
    }


async def health(service: Service, request: Request) -> Response:
    """Return the model's name, or 503 if the engine has stopped"""
    if not service.engine.thread.is_alive():
        raise APIError("the engine has stopped: restart the server.", status=503)
    return JSONResponse({"status": "ok", "model": service.name, "backend": service.backend, "version": __version__})


async def metrics(service: Service, request: Request) -> Response:
    text = service.metrics.text(service.engine.counts())
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
