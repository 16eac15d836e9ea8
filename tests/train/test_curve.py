"""Does chart.svg return valid SVG with every point and label in its place?"""

from xml.etree import ElementTree

import pytest

from numpy_gpt.train.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, apart, svg, ticks

SVG = "{http://www.w3.org/2000/svg}"


def parts(picture, name):
    return ElementTree.fromstring(picture).findall(SVG + name)


def points(line):
    return [tuple(map(float, point.split(","))) for point in line.get("points").split()]


def test_svg_places_points_by_their_values():
    picture = svg("a & <b>", {"train": [(0, 6.0), (50, 3.0), (100, 2.0)], "val": [(0, 6.0), (100, 4.0)]}, "step")
    train, val = map(points, parts(picture, "polyline"))
    assert train[0] == val[0] == (LEFT, TOP)
    assert train[2] == (WIDTH - RIGHT, HEIGHT - BOTTOM)
    assert train[1] == ((LEFT + WIDTH - RIGHT) / 2, TOP + 0.75 * (HEIGHT - TOP - BOTTOM))
    assert val[1] == (WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2)
    labels = [text.text for text in parts(picture, "text")]
    assert labels[:2] == ["a & <b>", "step"]
    assert labels[2:13] == ["0", "20", "40", "60", "80", "100", "2", "3", "4", "5", "6"]
    assert labels[13:] == ["train 2.000", "val 4.000"]


def test_svg_draws_a_curve_of_one_point():
    (line,) = parts(svg("run", {"train": [(0, 5.5)]}, "step"), "polyline")
    assert len(points(line)) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 2000], [0, 500, 1000, 1500, 2000]),
        ([1.76, 5.57], [1, 2, 3, 4, 5, 6]),
        ([0.0123, 0.0171], [0.012, 0.013, 0.014, 0.015, 0.016, 0.017, 0.018]),
        ([7], [6, 8]),
        ([0], [0, 0.2]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(values, expected):
    assert ticks(values) == pytest.approx(expected)


def test_apart_moves_overlapping_labels():
    assert apart([100, 104, 90]) == [106, 122, 90]
    assert apart([10, 90]) == [10, 90]
