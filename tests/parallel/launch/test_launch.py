# SPDX-License-Identifier: Apache-2.0
"""The launcher: what it starts, how it ends, and what is left. Its workers are small scripts."""

import os
import re
import signal
import time

import pytest

from tests.helpers.launching import Launch

WAIT = "heartbeat.start()\nfall_asleep()\n"


def test_workers_of_a_rank_table_know_their_place_and_have_a_log_each(tmp_path):
    launch = Launch(
        tmp_path,
        """
names = ["RANK_TABLE_FILE", "RANK_SIZE", "RANK_ID", "DEVICE_ID", "SERVER_ID"]
print([os.environ[name] for name in names], sys.argv[1:])
""",
        keys=["--key", "a value"],
        environment={"MS_ROLE": "MS_WORKER", "RANK_SIZE": "5"},
    )
    code, output, errors = launch.end()
    assert (code, errors) == (0, f"logs: {launch.logs}\n")
    for rank in (0, 1):
        place = [str(launch.table), "2", str(rank), str(rank), "127.0.0.1"]
        said = f"this is {rank}\n{place} ['--key', 'a value']\n"
        assert (launch.logs / f"worker_{rank}.log").read_text() == said
        assert (output == said) == (rank == 0)


def test_the_dead_rank_is_named_and_the_others_end(tmp_path):
    launch = Launch(tmp_path, WAIT)
    launch.wait_for("worker_0.log", "this is 0")
    launch.wait_for("worker_1.log", "this is 1")
    pid = launch.pid(1)
    os.kill(pid, signal.SIGKILL)
    code, _, errors = launch.end()
    assert code == 128 + signal.SIGKILL
    lines = errors.splitlines()
    assert lines[-1] == f"error: rank 1 (pid {pid}) was killed by SIGKILL; log: {launch.logs}/worker_1.log"
    assert lines[-2] == "this is 1"
    assert launch.left() == []


@pytest.mark.parametrize("work", [0, 2])
def test_a_crash_after_the_work_leaves_its_exit_code(tmp_path, work):
    launch = Launch(
        tmp_path,
        f"heartbeat.done({work}) if rank else None\n"
        "os.kill(os.getpid(), signal.SIGSEGV if rank else signal.SIGCONT)\n",
    )
    code, _, _ = launch.end()
    assert code == work
    log = (launch.logs / "worker_1.log").read_text()
    assert f"ended with code -11 after the work had ended with exit code {work}" in log


def test_a_full_disk_of_the_logs_is_named_and_the_work_keeps_its_exit_code(tmp_path):
    """A link to /dev/full stands for each file that is made on a full disk."""
    launch = Launch(
        tmp_path,
        """
heartbeat.start()
state, beats = os.environ["QUARTET_STATE"], os.environ["QUARTET_HEARTBEAT"]
while not os.listdir(state) or not os.listdir(beats):
    time.sleep(0.02)
for path in (f"{state}/rank_{rank}.end.new", f"{beats}/rank_{rank}.done", f"{state}/../space"):
    if not os.path.islink(path):
        os.symlink("/dev/full", path)
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
print("nobody will read this")
heartbeat.done(0)
""",
        "--standalone", 0, "--device_target", "Ascend",
        environment={"PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    code, _, errors = launch.end()
    assert code == 0, errors
    assert errors.splitlines()[1:] == [
        f"error: the logs in {launch.logs} are cut short (No space left on device); free space there"
    ]


def test_a_crash_during_the_work_is_one(tmp_path):
    launch = Launch(tmp_path, "meet()\nif rank:\n    os.kill(os.getpid(), signal.SIGSEGV)\nfall_asleep()\n")
    code, _, errors = launch.end()
    assert code == 128 + signal.SIGSEGV
    assert "was killed by SIGSEGV; log:" in errors


def test_a_worker_whose_starter_is_killed_counts_as_killed(tmp_path):
    launch = Launch(tmp_path, WAIT)
    launch.pid(0)
    launch.pid(1)
    os.kill(launch.pids(0)[1], signal.SIGKILL)
    code, _, errors = launch.end()
    assert code == 128 + signal.SIGKILL
    assert re.search(r"error: rank 0 \(pid \d+\) was killed by SIGKILL", errors)
    assert launch.left() == []


def test_a_failed_worker_gives_its_code_and_its_last_lines(tmp_path):
    launch = Launch(tmp_path, "meet()\nif rank:\n    sys.exit('something broke')\nfall_asleep()\n")
    code, output, errors = launch.end()
    assert code == 1
    assert output == "this is 0\n"
    assert "\nthis is 1\nsomething broke\nerror: rank 1 (pid" in errors
    assert errors.endswith(f"ended with exit code 1; log: {launch.logs}/worker_1.log\n")


def test_a_mistake_of_the_user_stays_one_line_and_is_not_tried_again(tmp_path):
    launch = Launch(
        tmp_path,
        "print('error: data_path: no such folder', file=sys.stderr)\nsys.exit(2)\n",
        environment={"MAX_RESTARTS": "3"},
    )
    code, _, errors = launch.end()
    assert code == 2
    assert re.fullmatch(r"logs: .*\nerror: rank [01] \(pid \d+\): data_path: no such folder\n", errors)


@pytest.mark.parametrize(("restarts", "ends"), [(0, 124), (1, 0)])
def test_a_stopped_worker_is_found_by_its_silence(tmp_path, restarts, ends):
    launch = Launch(
        tmp_path,
        f"if os.path.exists('again'):\n    sys.exit()\n{WAIT}",
        environment={"HANG_TIMEOUT": "4", "MAX_RESTARTS": str(restarts)},
    )
    launch.wait_for("heartbeat/rank_0")
    launch.wait_for("heartbeat/rank_1")
    (tmp_path / "again").touch()
    os.kill(launch.pid(1), signal.SIGSTOP)
    code, _, errors = launch.end()
    assert code == ends
    assert re.search(r"\nerror: rank 1 \(pid \d+\) hangs: no sign of life for 4 s \(HANG_TIMEOUT\)", errors)
    assert errors.count("restart 1 of 1, from the beginning") == restarts
    assert launch.left() == []


def test_workers_that_wait_for_ever_are_found_by_their_standstill(tmp_path):
    launch = Launch(
        tmp_path,
        "heartbeat.start()\nfor _ in range(7 - rank):\n    heartbeat.progress()\nfall_asleep()\n",
        environment={"PROGRESS_TIMEOUT": "4"},
    )
    code, _, errors = launch.end()
    assert code == 124
    assert re.search(
        r"no batch for 4 s \(PROGRESS_TIMEOUT\), furthest behind is rank 1 \(pid \d+\) with 6 batches, "
        r"the first has 7; for work with longer steps set a larger one, or 0; log: ",
        errors,
    )
    assert launch.left() == []


@pytest.mark.parametrize("batches", [0, 3])
def test_a_standstill_of_one_worker_names_nobody_as_behind(tmp_path, batches):
    launch = Launch(
        tmp_path,
        f"heartbeat.start()\nfor _ in range({batches}):\n    heartbeat.progress()\nfall_asleep()\n",
        "--standalone", 0, "--device_target", "Ascend",
        environment={"PROGRESS_TIMEOUT": "2"},
    )  # fmt: skip
    code, _, errors = launch.end()
    assert code == 124
    assert f"no batch for 2 s (PROGRESS_TIMEOUT), {batches or 'none'} before it; for work" in errors


SAVES = """
def save(*_):
    print("saved", rank, flush=True)
    time.sleep(rank)
    sys.exit(143)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, save)
print("ready", flush=True)
fall_asleep()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_lets_all_workers_save_and_stop(tmp_path, number):
    launch = Launch(tmp_path, SAVES, environment={"MAX_RESTARTS": "1"})
    for rank in (0, 1):
        launch.wait_for(f"worker_{rank}.log", "ready")
    launch.process.send_signal(number)
    code, _, errors = launch.end()
    assert code == 143
    assert errors.splitlines()[1:] == ["stopped"]
    for rank in (0, 1):
        assert f"saved {rank}" in (launch.logs / f"worker_{rank}.log").read_text()


def test_slurms_warning_to_all_processes_and_its_end_later_let_the_workers_save(tmp_path):
    """SIGUSR1 reaches the launcher, what it started and the workers, and after a while SIGTERM does."""
    launch = Launch(
        tmp_path,
        """
came = []
def note(number, _):  # as training/signals.py
    came.append(number)
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, note)
print("ready", flush=True)
while len(came) < 2:
    time.sleep(0.02)
print("saving", flush=True)
while signal.SIGTERM not in came or not os.path.exists("saved"):
    time.sleep(0.02)
sys.exit(143)
""",
        "--standalone", 0, "--device_target", "Ascend",
    )  # fmt: skip
    launch.wait_for("worker_0.log", "ready")
    worker, starter = launch.pids(0)
    os.kill(worker, signal.SIGUSR1)
    time.sleep(0.2)  # two at once may arrive as one
    for process in (starter, launch.process.pid):
        os.kill(process, signal.SIGUSR1)
    launch.wait_for("worker_0.log", "saving")
    for process in (worker, starter, launch.process.pid):
        os.kill(process, signal.SIGTERM)
    (tmp_path / "saved").touch()
    code, _, errors = launch.end()
    assert (code, errors.splitlines()[1:]) == (143, ["stopped"])


def test_a_stop_with_slow_steps_has_its_time_after_the_last_of_them(tmp_path):
    launch = Launch(
        tmp_path,
        """
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(1))
heartbeat.start()
print("ready", flush=True)
while not came:
    time.sleep(0.05)
for _ in range(5):
    time.sleep(1)
    heartbeat.progress()
sys.exit(143)
""",
        "--standalone", 0, "--device_target", "Ascend",
        environment={"STOP_TIMEOUT": "3"},
    )  # fmt: skip
    launch.wait_for("worker_0.log", "ready")
    launch.process.send_signal(signal.SIGTERM)
    code, _, errors = launch.end()
    assert (code, errors.splitlines()[1:]) == (143, ["stopped"])


def test_workers_that_stop_by_themselves_are_not_started_again(tmp_path):
    """As those on another server do, when one is told to stop."""
    launch = Launch(tmp_path, "time.sleep(rank)\nsys.exit(143)\n", environment={"MAX_RESTARTS": "1"})
    code, _, errors = launch.end()
    assert code == 143
    assert errors.splitlines()[1:] == ["stopped"]


DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\nfall_asleep()\n"


@pytest.mark.parametrize("how", ["time", "second signal"])
def test_workers_that_do_not_stop_are_killed(tmp_path, how):
    launch = Launch(tmp_path, DEAF, environment={"STOP_TIMEOUT": "1" if how == "time" else "60"})
    for rank in (0, 1):
        launch.wait_for(f"worker_{rank}.log", "ready")
    launch.process.send_signal(signal.SIGTERM)
    if how != "time":
        launch.process.send_signal(signal.SIGINT)
    code, _, errors = launch.end()
    assert code == 128 + signal.SIGKILL
    assert "error: rank 0 (pid" in errors and "was killed: it had not stopped" in errors
    assert launch.left() == []


def test_nothing_is_left_when_the_launcher_itself_is_killed(tmp_path):
    launch = Launch(tmp_path, WAIT)
    for rank in (0, 1):
        launch.wait_for(f"worker_{rank}.log", "this is")
    launch.process.kill()
    launch.process.wait()
    assert launch.left() == []


def test_processes_that_workers_left_behind_end_too(tmp_path):
    launch = Launch(
        tmp_path,
        """
if rank == 0:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", __file__], start_new_session=True)
""",
    )
    assert launch.end()[0] == 0
    assert launch.left() == []


# Fails at the first start and the first restart. It has a folder from the second start on.
FAILS_TWICE = """
from pathlib import Path
starts = Path(f"starts_{rank}")
starts.write_text((starts.read_text() if starts.exists() else "") + ".")
start = len(starts.read_text())
print(sys.argv[1:], flush=True)
if start > 1:
    heartbeat.announce("runs/r", ["--resume", "runs/r", "--lr", "set #2"])
if start < 3:
    meet(start)
    os.kill(os.getpid(), signal.SIGKILL) if rank else fall_asleep()
"""


def test_a_failed_training_goes_on_from_the_folder_that_it_announced(tmp_path):
    words = ["--config_path", "recipe.yaml", "--output_path", "runs with a #"]
    launch = Launch(tmp_path, FAILS_TWICE, keys=words, environment={"MAX_RESTARTS": "2"})
    code, output, errors = launch.end()
    assert code == 0, errors
    first, last = f"this is 0\n{words}\n", "this is 0\n['--resume', 'runs/r', '--lr', 'set #2']\n"
    assert output == f"{first}{first}{last}run: {tmp_path}/runs/r\n"
    assert f"restart 1 of 2, from the beginning; logs: {launch.logs}/restart_1\n" in errors
    assert f"restart 2 of 2, from runs/r; logs: {launch.logs}/restart_2\n" in errors
    assert errors.count("was killed by SIGKILL") == 2
    assert (launch.logs / "restart_2" / "worker_1.log").is_file()


def test_restarts_end(tmp_path):
    launch = Launch(tmp_path, "sys.exit(7)\n", environment={"MAX_RESTARTS": "2"})
    code, _, errors = launch.end()
    assert code == 7
    assert errors.count("ended with exit code 7") == 3
    assert errors.count("restart ") == 2


CORES = "print(sorted(os.sched_getaffinity(0)), flush=True)\n"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared")
@pytest.mark.parametrize("bind", ["1", "0"])
def test_cores_are_shared_by_card(tmp_path, bind):
    cores = sorted(os.sched_getaffinity(0))
    launch = Launch(tmp_path, CORES, environment={"BIND_CORES": bind})
    assert launch.end()[0] == 0
    half = len(cores) // 2
    shares = (cores[:half], cores[half : 2 * half]) if bind == "1" else (cores, cores)
    for rank, share in enumerate(shares):
        assert (launch.logs / f"worker_{rank}.log").read_text() == f"this is {rank}\n{share}\n"


def test_msrun_starts_the_workers_and_the_failed_one_is_named(tmp_path):
    launch = Launch(
        tmp_path,
        """
if os.environ.get("MS_ROLE") == "MS_WORKER":
    names = ["RANK_SIZE", "DEVICE_ID", "MS_NODE_ID", "MS_WORKER_NUM"]
    print([os.environ[name] for name in names], sys.argv[1:], flush=True)
    import psutil
    msrun = psutil.Process().parent().parent()
    assert "msrun" in " ".join(msrun.cmdline())
    msrun.send_signal(signal.SIGUSR1)  # as Slurm does, to all processes
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    meet()
    sys.exit(5) if rank == 1 else fall_asleep()
""",
        "--workers", 2, "--device_target", "CPU",
        keys=["--data_path", "set #2", "--run_name", "001", "--note", "$HOME 'x' \"y\""],
    )  # fmt: skip
    code, output, errors = launch.end()
    assert code == 5, errors
    words = ["--data_path", "set #2", "--run_name", "001", "--note", "$HOME 'x' \"y\""]
    assert output == f"this is 0\n['2', '0', '0', '2'] {words}\n"
    assert re.search(r"\nerror: rank 1 \(pid \d+\) ended with exit code 5; log: .*/worker_1.log\n", errors)
    assert launch.left() == []
