"""Bundle what the endpoints need."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..params import Model
from ..text.template import Template
from .engine import Engine
from .metrics import Metrics
from .parameters import Parameter


class Service(NamedTuple):
    m: Model
    template: Template | None  # of instructions
    name: str  # of the model
    backend: str  # "numpy" or "torch"
    engine: Engine
    inspect: Callable[[Any], dict[str, Any] | bytes]  # the body of a request -> the answer
    parameters: dict[str, Parameter]  # of a completion
    chat: dict[str, Parameter] | None  # the parameters of a chat if there is a template
    metrics: Metrics
    timeout: float  # seconds until a completion is cancelled
    started: int  # Unix time
