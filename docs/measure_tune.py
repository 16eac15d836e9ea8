"""Measure the effect of numpy_gpt.fast.tune on the time of the 124M with random weights.

    python docs/measure_tune.py

Processes with and without tune take turns.
"""

import statistics
import subprocess
import sys

CODE = """
import sys, time
import numpy as np
import numpy_gpt
if sys.argv[1] == "tuned":
    numpy_gpt.fast.tune()
m = numpy_gpt.init(numpy_gpt.Config())
tokens = np.random.default_rng(0).integers(0, m.config.n_vocab, (4, 65))
prompt = np.arange(512)[None]
runs = (lambda: numpy_gpt.forward(m, prompt), lambda: numpy_gpt.loss_and_grads(m, tokens[:, :-1], tokens[:, 1:]))
for run in runs:
    run()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    print(sorted(seconds)[2])
"""
ROUNDS = 3


def main() -> None:
    seconds: dict[str, list[list[float]]] = {"plain": [], "tuned": []}
    for _ in range(ROUNDS):
        for side, rounds in seconds.items():
            done = subprocess.run([sys.executable, "-c", CODE, side], capture_output=True, text=True, check=True)
            rounds.append([float(line) for line in done.stdout.split()])
    print(f"{'':32}{'without tune':>14}{'with tune':>14}")
    for i, name in enumerate(("forward, 1 x 512", "forward and backward, 4 x 64")):
        plain, tuned = (statistics.median(times[i] for times in seconds[side]) for side in ("plain", "tuned"))
        print(f"{name:32}{1000 * plain:11.0f} ms{1000 * tuned:11.0f} ms")


if __name__ == "__main__":
    main()
