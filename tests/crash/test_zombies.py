"""A worker that was stopped past its lease and goes on: what it still tries to write."""

from __future__ import annotations


def test_every_kind_of_write_under_a_lost_lease_is_refused_and_an_event_says_so(scripts, database):
    scripts.scenario("every_leased_write_of_a_zombie", database)


def test_a_handler_that_goes_on_after_the_takeover_can_do_nothing_through_its_context(
    scripts, database
):
    scripts.scenario("a_zombie_handler", database)


def test_what_a_stopped_process_is_about_to_send_nobody_else_sends(scripts, database):
    scripts.scenario("a_stopped_sender", database)


def test_what_a_stopped_process_was_about_to_send_another_sends_once_it_woke_and_stopped_it(
    scripts, database
):
    scripts.scenario("a_woken_sender", database)
