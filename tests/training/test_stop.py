"""Signals: the first asks for a stop at the next safe place, a second Ctrl-C in a row stops at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from regraft.training.checkpoint.stop import StopFlag


@pytest.fixture(autouse=True)
def main_thread() -> None:
    assert threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_asks_for_a_stop(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with StopFlag() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.exit_code == code
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once_and_a_second_sigterm_does_not() -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_much_later_only_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.training.checkpoint import stop as stop_module

    now = [0.0]
    monkeypatch.setattr(stop_module.time, "monotonic", lambda: now[0])
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        now[0] = 60.0
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested


def test_a_terminal_that_closes_asks_for_a_stop_and_nohup_does_not() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup themselves
    try:
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested
            assert stop.exit_code == 129
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)
