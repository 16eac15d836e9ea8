"""Route requests to the endpoints."""

from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from . import static
from .access import observed, require_key, require_local_host
from .chat import chat_completions
from .completions import completions
from .errors_as_json import HANDLERS
from .inspection_endpoint import Inspection
from .models import health, metrics, model, models
from .openapi import describe
from .service import Service
from .tokens import detokenize, tokenize, tokenizer_info


def new_app(service: Service, api_key: str | None, origins: list[str], on_loopback: bool) -> ASGIApp:
    """Return the ASGI application

    Arguments:
        service: what the endpoints share.
        api_key: the key that requests need, or None.
        origins: pages of these origins may use the API in a browser.
        on_loopback: whether the server listens on loopback.
    """
    document = describe(service.parameters, service.chat, service.m.tokenizer, service.name, api_key is not None)
    routes = endpoints(service, document)
    middleware = [Middleware(require_local_host)] if on_loopback else []
    if origins:
        methods = ["GET", "POST"]
        middleware.append(Middleware(CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=["*"]))
    if api_key is not None:
        middleware.append(Middleware(require_key, api_key))
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    return observed(app, service.metrics, {route.path for route in routes})


def endpoints(service: Service, document: dict[str, Any]) -> list[Route]:
    """Return the routes; document describes them as OpenAPI does"""

    async def openapi(service: Service, request: Request) -> Response:
        return JSONResponse(document)

    def get(path: str, endpoint: Any) -> Route:
        return Route(path, partial(endpoint, service), methods=["GET"])

    def post(path: str, endpoint: Any) -> Route:
        return Route(path, partial(endpoint, service), methods=["POST"])

    return [
        post("/v1/completions", completions),
        post("/v1/chat/completions", chat_completions),
        get("/v1/models", models),
        get("/v1/models/{name}", model),
        get("/tokenizer_info", tokenizer_info),
        post("/tokenize", tokenize),
        post("/detokenize", detokenize),
        post("/inspect", Inspection().answer),
        get("/health", health),
        get("/metrics", metrics),
        get("/openapi.json", openapi),
        Route("/", static.index, methods=["GET"]),
        Route("/page/{name}", static.page, methods=["GET"]),
    ]
