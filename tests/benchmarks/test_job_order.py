"""Work in order for several threads: nothing starts before what it waits for, and nothing waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import numpy as np
import pytest
from job_order import JobOrder


def run(order: JobOrder, work: Callable[[str], bool], threads: int = 3) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(order.work_off, work) for _ in range(threads)]:
            future.result(timeout=30)


def test_everything_once_and_after_what_it_waits_for() -> None:
    random, lock = np.random.default_rng(0), threading.Lock()
    for _ in range(20):
        names = [str(number) for number in range(30)]
        after = {name: str(random.integers(int(name))) for name in names[1:] if random.random() < 0.7}
        done: list[str] = []

        def work(name: str, after: dict[str, str] = after, done: list[str] = done) -> bool:
            with lock:
                assert name not in after or after[name] in done
                done.append(name)
            return True

        run(JobOrder(names, after), work)
        assert sorted(done) == sorted(names)


def test_one_thread_keeps_the_order_but_for_what_has_to_wait() -> None:
    done: list[str] = []

    def work(name: str) -> bool:
        done.append(name)
        return name != "b"

    run(JobOrder("abcdefg", {"c": "b", "d": "c", "e": "a", "f": "elsewhere"}), work, 1)
    assert done == ["a", "b", "e", "f", "g"]  # c and d wait for what failed


def test_later_work_goes_on_while_the_first_waits() -> None:
    """The training (a) ends only after what does not need it (c) has run, with two threads."""
    ran = threading.Event()

    def work(name: str) -> bool:
        if name == "c":
            ran.set()
        return ran.wait(10) if name == "a" else True

    done: list[str] = []
    run(JobOrder("abc", {"b": "a"}), lambda name: work(name) and not done.append(name), 2)  # type: ignore[func-returns-value]
    assert set(done) == set("abc") and done.index("c") < done.index("b")


def test_an_exception_stops_nobody_else() -> None:
    done: list[str] = []

    def work(name: str) -> bool:
        if name == "a":
            raise ZeroDivisionError
        done.append(name)
        return True

    with pytest.raises(ZeroDivisionError):
        run(JobOrder("abc", {"b": "a"}), work)
    assert done == ["c"]
