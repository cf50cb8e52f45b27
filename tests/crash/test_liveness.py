"""Who keeps a lease, who loses it, and how soon that is seen."""

from __future__ import annotations


def test_a_killed_worker_is_noticed_within_half_a_second(scripts):
    scripts.scenario("a_killed_worker_is_noticed")


def test_a_handler_that_blocks_the_event_loop_for_three_leases_keeps_its_lease(scripts):
    scripts.scenario("a_blocked_event_loop")


def test_a_worker_that_cannot_renew_stops_before_its_lease_runs_out_and_recovers(scripts):
    scripts.scenario("a_database_locked_for_longer_than_the_lease")
