"""The spool between an engine's process and the site's: answers are found again, and nobody waits in vain."""

from __future__ import annotations

import multiprocessing
import stat
import subprocess
import sys
import threading
import time

import pytest

from nnunet_fedmepd.deployment.spool import KEPT_REPLIES, Spool, SpoolError

SERVING = """
import sys, time
from pathlib import Path
from nnunet_fedmepd.deployment.spool import Spool
spool = Spool(Path(sys.argv[1]))
with spool.serving():
    print("ready", flush=True)
    while True:
        if (waiting := spool.waiting()) is not None:
            key, request = waiting
            print(key, flush=True)
            spool.answer(key, b"answer to " + request, keep=not key.startswith("once"))
        time.sleep(0.01)
"""


@pytest.fixture
def served(tmp_path):
    """A process that answers, and how to start it."""
    process = subprocess.Popen([sys.executable, "-c", SERVING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


def test_a_request_is_answered_once_and_its_answer_found_again(served, tmp_path):
    spool = Spool(tmp_path)
    assert [spool.ask("a", b"1"), spool.ask("a", b"1"), spool.ask("b", b"2")] == [
        *(b"answer to 1", b"answer to 1", b"answer to 2"),
    ]
    assert [served.stdout.readline().strip() for _ in range(2)] == ["a", "b"]
    served.kill()
    served.wait()
    assert spool.ask("b", b"2") == b"answer to 2"


def test_an_answer_that_is_not_kept_is_given_anew(served, tmp_path):
    spool = Spool(tmp_path)
    assert spool.ask("once", b"1") == spool.ask("once", b"1") == b"answer to 1"
    assert [served.stdout.readline().strip() for _ in range(2)] == ["once", "once"]


def test_without_the_sites_process_a_question_is_withdrawn(tmp_path):
    with pytest.raises(SpoolError, match="the site's own process is not running"):
        Spool(tmp_path).ask("a", b"1")
    assert list((tmp_path / "requests").iterdir()) == []


def test_whoever_waits_is_told_when_the_process_dies(served, tmp_path):
    with (tmp_path / "requests" / "zzz.1.partial").open("wb"):  # never answered: not whole
        pass
    served.send_signal(19)  # stopped: it holds the lock, and does nothing
    killer = threading.Timer(0.5, served.kill)
    killer.start()
    with pytest.raises(SpoolError):
        Spool(tmp_path).ask("a", b"1")


def test_a_second_process_is_refused(served, tmp_path):
    with pytest.raises(SpoolError, match="Another process of this site"), Spool(tmp_path).serving():
        pass


def test_a_killed_process_is_not_outlived_by_the_lock_its_children_inherited(tmp_path):
    def hold(folder):
        with Spool(folder).serving():
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,), daemon=False).start()
            time.sleep(60)

    holder = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path,))
    holder.start()
    until = time.monotonic() + 20
    while not Spool(tmp_path).is_served() and time.monotonic() < until:
        time.sleep(0.1)
    assert Spool(tmp_path).is_served()
    time.sleep(0.5)
    holder.kill()
    holder.join()
    assert not Spool(tmp_path).is_served()


def test_only_the_last_answers_are_kept_and_the_folder_is_its_owners_alone(served, tmp_path):
    spool = Spool(tmp_path)
    for i in range(5):
        spool.ask(str(i), b"?")
    time.sleep(0.5)
    assert len(list((tmp_path / "replies").iterdir())) == KEPT_REPLIES
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path, tmp_path / "replies", tmp_path / "requests")} == {0o700}
