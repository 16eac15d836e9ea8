"""Read and write adapter_config.json, which describes a LoRA adapter in PEFT's layout."""

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CheckpointError
from ..lora import TARGETS
from ..number import is_real
from ..params import Block
from ..system.files import read_json

LARGEST_ALPHA = 1e30
DEFAULTS: dict[str, Any] = {"r": 8, "lora_alpha": 8, "use_rslora": False}
UNSUPPORTED = (  # options of PEFT that change the arithmetic; each is refused unless it is false, null or empty
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "rank_pattern", "alpha_pattern", "layer_replication"),
    *("target_parameters", "trainable_token_indices", "alora_invocation_tokens"),
    *("arrow_config", "kasa_config", "monteclora_config"),
)
INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal", "mica")  # those that leave the base model unchanged


class Description(NamedTuple):
    """Hold the values of adapter_config.json that a reader needs"""

    rank: int
    alpha: float  # scale = alpha / rank
    base: str  # base_model_name_or_path, or "" if there is none


def read(path: Path) -> Description:
    """Return the values of an adapter_config.json

    The tensors in the adapter's file show which matrices are adapted, so target_modules isn't read. lora_dropout acts
    only in training. With use_rslora PEFT's scale is alpha / sqrt(rank): the alpha that is returned gives that scale.

    Raises CheckpointError if the adapter isn't w + scale a b.
    """
    keys = read_json(path)
    check_arithmetic(path, keys)
    rank, alpha, stabilized = (keys.get(key, default) for key, default in DEFAULTS.items())
    base = keys.get("base_model_name_or_path") or ""
    if type(rank) is not int or rank < 1:
        raise CheckpointError(f"{path} has r {rank!r:.40}: it must be a whole number of at least 1.")
    if not is_real(alpha) or abs(alpha) > LARGEST_ALPHA:
        raise CheckpointError(
            f"{path} has lora_alpha {alpha!r:.40}: it must be a number of at most {LARGEST_ALPHA:.0e}."
        )
    if not isinstance(base, str):
        raise CheckpointError(f"{path} has base_model_name_or_path {base!r:.40}: it must be a string or null.")
    if not isinstance(stabilized, bool):
        raise CheckpointError(f"{path} has use_rslora {stabilized!r:.40}: it must be true or false.")
    return Description(rank, float(alpha) * (math.sqrt(rank) if stabilized else 1), base)


def check_arithmetic(path: Path, keys: Mapping[str, Any]) -> None:
    """Raise CheckpointError if an adapter needs other arithmetic than w + scale a b, or another base model"""
    if keys.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{path} has peft_type {keys.get('peft_type')!r:.40}, and only LORA is supported: get a LoRA adapter."
        )
    for key in UNSUPPORTED:
        if keys.get(key):
            raise CheckpointError(
                f"{path} has {key} {keys[key]!r:.40}, which isn't supported: apply this adapter with PEFT."
            )
    if keys.get("bias", "none") != "none":
        raise CheckpointError(
            f"{path} has bias {keys['bias']!r:.40}, and trained biases aren't supported: apply this adapter with PEFT."
        )
    if keys.get("init_lora_weights", True) not in INITIALISATIONS:
        raise CheckpointError(
            f"{path} has init_lora_weights {keys['init_lora_weights']!r:.40}, which changes the base model: save the "
            "adapter with PEFT's path_initial_model_for_weight_conversion."
        )


def contents(adapters: Sequence[Block], rank: int, alpha: float, base: str, classifier: bool) -> dict[str, Any]:
    """Return the contents of adapter_config.json for adapters; a classifier has a head beside them"""
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if classifier else "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else float(alpha),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": True,  # weights are (in, out)
        **targets(adapters),
        "modules_to_save": ["score"] if classifier else None,
        "inference_mode": True,
    }


def targets(adapters: Sequence[Block]) -> dict[str, Any]:
    """Return the keys by which PEFT selects the adapted matrices and no others

    PEFT compares the end of a module's name with each of target_modules. c_proj alone would select two matrices.
    """
    found = [[name for name in TARGETS if attrgetter(name)(block) is not None] for block in adapters]
    blocks = [i for i, names in enumerate(found) if names]
    some = len(blocks) < len(found)
    if all(found[i] == found[blocks[0]] for i in blocks):
        layers = {"layers_to_transform": blocks, "layers_pattern": "h"} if some else {}
        return {"target_modules": found[blocks[0]], **layers}
    return {"target_modules": [f"h.{i}.{name}" for i in blocks for name in found[i]]}
