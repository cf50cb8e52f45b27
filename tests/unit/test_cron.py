"""Cron expressions over real time zones, where the clocks go forward and back."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from holdfast import errors
from holdfast.cron import Cron


def due(expression, zone, start, count=3, fold=0):
    """Return when it is due next, as often as asked, from a time of day in the zone on."""
    cron = Cron(expression, zone)
    at = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()
    found = []
    for _ in range(count):
        following = cron.next_after(at)
        assert following > at
        at = following
        found.append(cron.shown(at))
    return found


def test_a_time_of_day_stays_the_same_over_both_changes():
    assert due("0 9 * * mon-fri", "Europe/Berlin", "2026-03-27T08:00") == [
        "2026-03-27T09:00:00+01:00",
        "2026-03-30T09:00:00+02:00",
        "2026-03-31T09:00:00+02:00",
    ]
    assert due("0 9 * * *", "America/New_York", "2026-10-31T08:00", 2) == [
        "2026-10-31T09:00:00-04:00",
        "2026-11-01T09:00:00-05:00",
    ]


def test_a_time_that_the_clocks_skip_is_due_as_soon_as_they_have():
    assert due("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert due("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", 1) == [  # half an hour
        "2026-10-04T02:30:00+11:00"
    ]


def test_a_time_that_comes_twice_is_due_once():
    assert due("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    # Asked between the two: the first is over, and the second doesn't count.
    assert due("30 2 * * *", "Europe/Berlin", "2026-10-25T02:10", 1, fold=1) == [
        "2026-10-26T02:30:00+01:00"
    ]


def test_what_is_due_every_hour_goes_by_the_time_that_passes():
    assert due("30 * * * *", "Europe/Berlin", "2026-10-25T01:40", 3) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:30:00+01:00",
    ]
    assert due("30 * * * *", "Europe/Berlin", "2026-03-29T01:00", 2) == [
        "2026-03-29T01:30:00+01:00",
        "2026-03-29T03:30:00+02:00",
    ]


def test_six_fields_begin_with_seconds():
    assert due("*/20 * * * * *", "UTC", "2026-01-01T00:00:05", 2) == [
        "2026-01-01T00:00:20+00:00",
        "2026-01-01T00:00:40+00:00",
    ]


@pytest.mark.parametrize(
    "expression", ["", "x", "* * * *", "61 * * * *", "0 9 * * someday", "0 0 30 2 *", "@daily"]
)
def test_an_expression_that_means_nothing_is_refused(expression):
    with pytest.raises(errors.UsageError, match="no cron expression"):
        Cron(expression).check()


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "", "../UTC", "Berlin"])
def test_a_time_zone_that_is_not_there_is_refused(zone):
    with pytest.raises(errors.UsageError, match="no time zone"):
        Cron("0 9 * * *", zone).check()
