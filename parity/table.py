"""Summarise repeated measurements, and align the columns of a table."""

import statistics
from collections.abc import Iterable


def spread(figures: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum"""
    return {"median": statistics.median(figures), "min": min(figures), "max": max(figures)}


def median_and_range(figures: Iterable[float]) -> str:
    """Return median (lowest-highest) of three figures"""
    low, median, high = (f"{figure:.0f}" if figure >= 10 else f"{figure:.1f}" for figure in sorted(figures))
    return f"{median} ({low}-{high})"


def aligned(rows: list[list[str]]) -> list[str]:
    """Return the lines of a table"""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
