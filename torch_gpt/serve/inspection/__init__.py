"""Provide the operations of torch_gpt to numpy_gpt.serve.inspection."""

from numpy_gpt.serve.inspection.functions import InspectionFunctions

from ... import ops
from ...model import block
from ...params import to_numpy
from .recording import run_backward, run_forward

# functions by the name of the op, bound here because record replaces those of model.py while it runs
TWIN = {
    **{name: getattr(ops, name) for name in ("embedding", "layernorm", "linear", "attention", "gelu", "unembedding")},
    "sum": block,
}
FUNCTIONS = InspectionFunctions(lambda m: m._replace(params=to_numpy(m.params)), run_forward, run_backward, TWIN)
