"""python -m parity bench --serve: measure the server, and compare its results under load with those alone.

The server is numpy_gpt.serve with the storyteller, in a process of its own. This process sends it streams.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator
from itertools import chain, count, cycle, takewhile
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, NamedTuple

from .streams import Reply, ask, ask_all, check_health, serving
from .table import aligned, median_and_range, spread
from .workloads import machine

PROMPT = "Once upon a time there was a little girl"
FEW = 8  # streams
MACHINE = ("cpu", "cores", "system", "python", "numpy", "kernels")


class Sizes(NamedTuple):
    """Hold the sizes of a measurement"""

    starts: int = 3
    rounds: int = 3
    texts: int = 16  # of a round
    new: int = 100  # tokens of a text
    probes: int = 20  # short prompts
    distinct: int = 100  # requests of the load
    streams: int = 50
    seconds: float | None = 60.0  # None: send each request twice


QUICK = Sizes(starts=1, rounds=1, texts=8, new=10, probes=3, distinct=12, streams=6, seconds=None)


def run(quick: bool, as_json: bool) -> int:
    """Measure and print; return 1 if a request failed, or if a result under load is another one than alone"""
    about = machine("cpu")
    results: dict[str, Any] = {name: about[name] for name in MACHINE} | {"failed": [], "different": []}
    try:
        measure(QUICK if quick else Sizes(), results)
    finally:  # after Ctrl-C, print what was measured
        print(json.dumps(results) if as_json else table(results))
    return 1 if results["failed"] or results["different"] else 0


def measure(sizes: Sizes, results: dict[str, Any]) -> None:
    """Start servers, measure the last one, and add what was measured to the results"""
    starts: list[float] = []
    for last in range(1, sizes.starts + 1):
        started = perf_counter()
        with serving("numpy_gpt") as (process, address):
            asyncio.run(check_health(address))
            starts.append(perf_counter() - started)
            if last == sizes.starts:
                results["ready_s"] = spread(starts)
                asyncio.run(measure_server(address, process.pid, sizes, results))


async def measure_server(address: str, pid: int, sizes: Sizes, results: dict[str, Any]) -> None:
    results["tokens_per_s"] = await throughput(address, sizes, results["failed"])
    results["first_token_s"] = await first_tokens(address, sizes, results["failed"])
    results["load"] = await load(address, pid, sizes, results)


async def throughput(address: str, sizes: Sizes, failed: list[str]) -> dict[str, dict[str, float]]:
    """Return tokens per second of one stream and of FEW streams, which take turns"""
    rates: dict[int, list[float]] = {1: [], FEW: []}
    texts = [{"prompt": PROMPT, "max_tokens": sizes.new, "seed": seed} for seed in range(sizes.texts)]
    for _ in range(sizes.rounds):
        for streams, found in rates.items():
            started = perf_counter()
            replies = await ask_all(address, texts, streams)
            found.append(sum(reply.tokens for reply in replies) / (perf_counter() - started))
            failed += errors(replies)
    return {str(streams): spread(found) for streams, found in rates.items()}


async def first_tokens(address: str, sizes: Sizes, failed: list[str]) -> dict[str, float]:
    """Return the seconds from sending a short prompt to its first token while FEW other streams run"""
    ended = False
    seeds = takewhile(lambda _: not ended, count())
    others = ({"prompt": PROMPT, "max_tokens": 200, "seed": seed} for seed in seeds)
    background = asyncio.create_task(ask_all(address, others, FEW))
    probe = {"prompt": "Tom", "max_tokens": 1}
    _, *probes = [await ask(address, probe) for _ in range(1 + sizes.probes)]  # the others run after the first one
    ended = True
    failed += errors([*probes, *await background])
    return spread([reply.first for reply in probes])


async def load(address: str, pid: int, sizes: Sizes, results: dict[str, Any]) -> dict[str, Any]:
    """Keep many streams running, and compare each reply with that to the same request alone"""
    requests = [varied(i) for i in range(sizes.distinct)]
    alone = await ask_all(address, requests, 1)
    memory: list[int | None] = []
    started = perf_counter()
    sent = repeated(requests, sizes.seconds)
    replies = await ask_all(address, sent, sizes.streams, lambda: memory.append(resident(pid)))
    seconds = perf_counter() - started
    results["failed"] += errors([*alone, *replies])
    triples = zip(cycle(requests), cycle(alone), replies, strict=False)
    results["different"] += [request for request, expected, reply in triples if not reply.equals(expected)]
    return {
        "streams": sizes.streams,
        "seconds": seconds,
        "requests": len(replies),
        "tokens_per_s": sum(reply.tokens for reply in replies) / seconds,
        "memory": [memory[len(memory) // 3], memory[-1]],  # buffers have grown to their sizes in the first third
    }


def repeated(requests: list[dict[str, Any]], seconds: float | None) -> Iterable[dict[str, Any]]:
    """Return the requests again and again until the seconds are over, or twice"""
    if seconds is None:
        return chain(requests, requests)
    end = perf_counter() + seconds
    return takewhile(lambda _: perf_counter() < end, cycle(requests))


def errors(replies: list[Reply]) -> list[str]:
    return [reply.error for reply in replies if reply.error]


def resident(pid: int) -> int | None:
    """Return the bytes of memory that a process uses, or None if it has ended or the system has no /proc"""
    try:
        fields = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()
    except OSError:
        return None
    return int(fields[0]) * 1024 if fields else None


def varied(i: int) -> dict[str, Any]:
    """Return a request; its prompt's length, its number of tokens and its options vary with i"""
    random = Random(i)
    return {
        "prompt": [random.randrange(4000) for _ in range(random.randint(1, 120))],
        "max_tokens": random.randint(1, 120),
        "temperature": random.choice([0, 0.7, 1]),
        "top_p": random.choice([0.9, 1]),
        "seed": i,
        "logprobs": random.choice([None, 0, 2]),
        "frequency_penalty": random.choice([0, 0.5]),
        "stop": random.choice([None, "the"]),
    }


def table(results: dict[str, Any]) -> str:
    """Return what was measured, next to the goals"""
    lines = aligned([["", "", "goal"], *rows(results)])
    problems = [f"A request failed: {error:.300}" for error in results["failed"][:1]]
    problems += [f"A result differs from that alone: {json.dumps(r):.300}" for r in results["different"][:1]]
    where = "{cpu}, {cores} cores; Python {python}, NumPy {numpy} on {kernels}".format(**results)
    return "\n".join([*lines, "", *problems, where])


def rows(results: dict[str, Any]) -> Iterator[list[str]]:
    """Yield name, figure and goal of what was measured"""
    if "ready_s" in results:
        yield ["start to ready", ms(results["ready_s"]), "less than 1000 ms"]
    if "tokens_per_s" in results:
        one, few = results["tokens_per_s"].values()
        yield ["1 stream", f"{median_and_range(one.values())} tokens/s", ""]
        yield [f"{FEW} streams", f"{median_and_range(few.values())} tokens/s", f"{3 * one['median']:.0f} tokens/s"]
    if "first_token_s" in results:
        yield [f"first token, {FEW} other streams", ms(results["first_token_s"]), "at most 200 ms"]
    if "load" in results:
        found = results["load"]
        yield [f"{found['streams']} streams", "{tokens_per_s:.0f} tokens/s for {seconds:.0f} s".format(**found), ""]
        yield ["  failed requests", str(len(results["failed"])), "0"]
        yield ["  results unlike those alone", f"{len(results['different'])} of {found['requests']}", "0"]
        yield ["  memory after a third", megabytes(found["memory"][0]), ""]
        yield ["  memory at the end", megabytes(found["memory"][1]), "the same"]


def ms(seconds: dict[str, float]) -> str:
    return f"{median_and_range(1000 * s for s in seconds.values())} ms"


def megabytes(size: int | None) -> str:
    return f"{size / 1e6:.0f} MB" if size else "-"
