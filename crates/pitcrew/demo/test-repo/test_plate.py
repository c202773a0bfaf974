"""Tests of the formulas, and of what the executed notebook found."""

import json
import os
import pathlib

import pytest

import plate

RESULT = pathlib.Path(os.environ.get("RESULT", "../results/result.json"))


@pytest.fixture(scope="module")
def result():
    return json.loads(RESULT.read_text())


def test_nothing_is_lost_before_the_start():
    assert plate.decay(1.0, 0.0) == 1.0


def test_half_is_left_at_the_half_life():
    assert plate.decay(0.7, plate.half_life(0.7)) == pytest.approx(0.5)


@pytest.mark.parametrize("time", [-1.0, -1e-9])
def test_time_does_not_run_backwards(time):
    with pytest.raises(ValueError):
        plate.decay(1.0, time)


def test_the_solver_is_of_second_order(result):
    assert plate.is_second_order(result["order"]), result


def test_finer_grids_are_more_exact(result):
    assert result["errors"] == sorted(result["errors"], reverse=True)


def test_the_finest_grid_is_good_enough(result):
    assert result["errors"][-1] < 1e-3
