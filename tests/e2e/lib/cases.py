"""Collects a suite's cases, runs them one by one, tells each, and counts.

The last line is `N passed, N failed`; the exit status is 1 if any failed.
"""

import itertools
import os
import signal
import sys
import time
import traceback

CASE_SECONDS = 120

_cases = []
_count = itertools.count(1)


def case(function):
    """Marks a case. Its first line of documentation, or its name, is what is told."""
    _cases.append(function)
    return function


def user(name="user"):
    """An id that no other case uses."""
    return f"{name}-{next(_count)}"


def equal(found, expected, what="value"):
    assert found == expected, f"{what}: {found!r} instead of {expected!r}"


def eventually(check, seconds=30, what="it"):
    """Looks until `check` gives something true: for what the interface allows to lag."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds} s"
        time.sleep(0.05)


def _too_long(*_):
    raise TimeoutError(f"the case took longer than {CASE_SECONDS} s")


def _ended(*_):
    raise SystemExit("ended by SIGTERM")


def run(*arguments):
    """Runs every case, or those whose names are on the command line."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGTERM, _ended)
    wanted = sys.argv[1:]
    suite = os.path.abspath(sys.argv[0])
    passed = failed = 0
    for function in _cases:
        if wanted and function.__name__ not in wanted:
            continue
        started = time.monotonic()
        signal.alarm(CASE_SECONDS)
        try:
            function(*arguments)
        except Exception as error:
            failed += 1
            at = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == suite]
            place = f" (line {at[-1].lineno})" if at else ""
            told = str(error) or traceback.format_exc()
            print(f"FAIL {function.__name__}{place}: {type(error).__name__}: {told}", flush=True)
        else:
            passed += 1
            print(f"ok   {function.__name__} ({time.monotonic() - started:.2f} s)", flush=True)
        finally:
            signal.alarm(0)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0
