"""Count requests, and write all counts as Prometheus text."""

from collections import Counter


class Metrics:
    """Count the responses by path and status"""

    def __init__(self) -> None:
        self.responses: Counter[tuple[str, int]] = Counter()

    def text(self, engine: dict[str, int]) -> str:
        """Return all counts, with those of the engine"""
        responses = {f'{{path="{path}",status="{status}"}}': n for (path, status), n in sorted(self.responses.items())}
        families = [
            family("responses_total", "counter", "responses by path and status", responses),
            family("prompt_tokens_total", "counter", "tokens of prompts read", {"": engine["prompt_tokens"]}),
            family("generated_tokens_total", "counter", "tokens drawn", {"": engine["generated_tokens"]}),
            family("running_sequences", "gauge", "sequences that are being decoded", {"": engine["running"]}),
            family("waiting_sequences", "gauge", "sequences in the queue", {"": engine["waiting"]}),
        ]
        return "".join(families)


def family(name: str, kind: str, description: str, samples: dict[str, int]) -> str:
    """Return the lines of one metric"""
    name = f"numpy_gpt_{name}"
    lines = [f"# HELP {name} {description}", f"# TYPE {name} {kind}"]
    return "\n".join([*lines, *(f"{name}{labels} {value}" for labels, value in samples.items()), ""])
