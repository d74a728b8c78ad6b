"""Adaptive spinning: it goes on while it pays and pauses ever longer while it does not."""

from __future__ import annotations

from manybridge.protocol.spinning import FIRST_PAUSE, LONGEST_PAUSE, MOST_CREDIT, AdaptiveSpin


def waits_without_spin(spin: AdaptiveSpin) -> int:
    """Ask until a spin is worth it again; return how many waits slept at once."""
    return next(number for number in range(LONGEST_PAUSE + 1) if spin.is_worth_it())


def test_spinning_goes_on_while_it_pays() -> None:
    """A client that takes turns with a worker meets it awake every time."""
    spin = AdaptiveSpin(cores=2)
    for _ in range(10):
        assert spin.is_worth_it()
        spin.paid()


def test_pauses_double_up_to_the_longest() -> None:
    """On a busy machine spinning costs next to nothing."""
    spin, pauses = AdaptiveSpin(cores=2), []
    for _ in range(8):
        spin.was_in_vain()
        pauses.append(waits_without_spin(spin))
    assert pauses == [min(LONGEST_PAUSE, FIRST_PAUSE * 2**n) for n in range(8)]


def test_one_success_shortens_the_next_pause() -> None:
    """Times have changed, and may change back."""
    spin = AdaptiveSpin(cores=2)
    for _ in range(5):
        spin.was_in_vain()
        waits_without_spin(spin)
    spin.paid()
    spin.was_in_vain()
    assert waits_without_spin(spin) == FIRST_PAUSE


def test_a_client_who_pauses_once_in_a_while_does_not_end_it() -> None:
    """Four of five are enough; with fewer it ends."""
    spin = AdaptiveSpin(cores=2)
    for _ in range(20):
        for _ in range(4):
            assert spin.is_worth_it()
            spin.paid()
        assert spin.is_worth_it()
        spin.was_in_vain()

    rounds = 0
    while not spin.pause:
        for _ in range(3):
            spin.paid()
        spin.was_in_vain()
        rounds += 1
    assert rounds <= MOST_CREDIT


def test_nothing_spins_on_one_core() -> None:
    """The other process could not run meanwhile."""
    spin = AdaptiveSpin(cores=1)
    assert not any(spin.is_worth_it() for _ in range(2 * LONGEST_PAUSE))


def test_the_cores_of_this_process_are_counted() -> None:
    """Not those of the machine: a container may have fewer."""
    assert AdaptiveSpin().pause in {0, -1}
