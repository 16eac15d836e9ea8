"""Compute the tensors, predictions and gradients of a prompt that the page displays, as answers to POST /inspect."""

from typing import Any

from ...errors import GPTError
from ...params import Model
from ..parameters import shown
from .attention import answer_attention, answer_head, answer_row
from .attribution import answer_attribution
from .backward import answer_backward
from .candidates import answer_candidates
from .compare import answer_compare
from .diagram import answer_diagram
from .functions import InspectionFunctions
from .lens import answer_lens
from .numbers import rounded
from .recording import run_backward, run_forward
from .request import Request
from .tokens import answer_tokens

FUNCTIONS = InspectionFunctions(lambda m: m, run_forward, run_backward)
# view -> (function, names of its fields besides view and prompt)
VIEWS = {
    "tokens": (answer_tokens, ()),
    "candidates": (answer_candidates, ("position", "temperature", "top_k", "top_p")),
    "attention": (answer_attention, ()),
    "head": (answer_head, ("layer", "head", "first", "count")),
    "row": (answer_row, ("layer", "head", "position")),
    "lens": (answer_lens, ("positions",)),
    "attribution": (answer_attribution, ("position", "target", "other")),
    "backward": (answer_backward, ("position", "target")),
    "diagram": (answer_diagram, ("box", "position")),
    "compare": (answer_compare, ()),
}


def answer(functions: InspectionFunctions, m: Model, body: Any) -> dict[str, Any] | bytes:
    """Return one view of the computation of a prompt, as an object for JSON or as bytes

    Arguments:
        functions: the operations of the framework, FUNCTIONS of this module or of torch_gpt.serve.inspection.
        m: the model, with the framework's arrays or tensors.
        body: the request's JSON, an object with "view", "prompt" and the fields of the view.

    The tensors of the last prompt are kept. Several threads may call answer at the same time.

    Raises GPTError if the request is invalid, if the output or a gradient isn't finite, or if the memory is full.
    """
    if not isinstance(body, dict):
        raise GPTError(f"the request is {shown(body)}: it must be a JSON object with a view and a prompt.")
    view = body.get("view")
    if not isinstance(view, str) or view not in VIEWS:
        raise GPTError(f"view is {shown(view)}: it must be one of {', '.join(VIEWS)}.")
    f, fields = VIEWS[view]
    unknown = [name for name in body if name not in ("view", "prompt", *fields)]
    if unknown:
        raise GPTError(f"the view {view} has no field {shown(unknown[0])}: {explain(fields)}.")
    try:
        return rounded(f(Request(functions, m, body)))
    except MemoryError:
        raise GPTError(f"the memory is full: the view {view} needs a shorter prompt or a smaller model.") from None


def explain(fields: tuple[str, ...]) -> str:
    """Return which fields a view has besides view and prompt"""
    return f"its fields are view, prompt, {', '.join(fields)}" if fields else "its fields are view and prompt"
