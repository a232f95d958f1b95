"""Work left behind: in order, never many calls behind, and no error lost."""

import threading
import time

import pytest

from selftrain.behind import WAITING, Behind


def test_calls_are_made_in_order_by_one_other_thread():
    told = []
    with Behind() as behind:
        for number in range(20):
            behind(lambda number=number: told.append((number, threading.get_ident())))
    assert [number for number, _ in told] == list(range(20))
    assert len({thread for _, thread in told}) == 1 and told[0][1] != threading.get_ident()


def test_the_loop_is_never_more_than_a_few_calls_ahead():
    begun, done, ahead = 0, [], []
    with Behind() as behind:
        for _ in range(12):
            behind(lambda: (time.sleep(0.005), done.append(1)))
            begun += 1
            ahead.append(begun - len(done))
    assert max(ahead) <= WAITING + 1 and len(done) == 12


def test_results_are_taken_in_order_by_the_loops_thread_however_many_threads_work():
    taken, waits = [], [0.02, 0, 0.01, 0] * 5
    with Behind(4) as behind:
        for number, wait in enumerate(waits):
            work = lambda number=number, wait=wait: (time.sleep(wait), number)[1]  # noqa: E731
            behind(work, then=lambda number: taken.append((number, threading.get_ident())))
    assert taken == [(number, threading.get_ident()) for number in range(20)]


def fail():
    raise ValueError("no space")


def test_an_error_is_raised_by_a_later_call_or_at_the_end():
    told = []
    with pytest.raises(ValueError, match="no space"), Behind() as behind:
        behind(fail)
        for number in range(WAITING + 5):
            behind(told.append, number)
    assert len(told) <= WAITING + 1
    with pytest.raises(ValueError, match="no space"), Behind() as behind:
        behind(fail)


def test_an_error_of_the_loop_itself_goes_first_and_drops_what_waits():
    told, started, release = [], threading.Event(), threading.Event()
    with pytest.raises(KeyError, match="loop"), Behind() as behind:
        behind(lambda: (started.set(), release.wait(5), told.append("running")))
        behind(told.append, "waiting")
        started.wait(5)
        threading.Timer(0.05, release.set).start()
        raise KeyError("loop")
    assert told == ["running"]
