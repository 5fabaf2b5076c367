# SPDX-License-Identifier: Apache-2.0
import hashlib
from pathlib import Path

import pytest

from src.data.prepare import fetch as module
from src.data.prepare.fetch import download
from tests.helpers.errors import fails

DATA = bytes(range(256)) * 40
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file.tar.gz"


def fetch(server, target, md5=MD5, timeout=10):
    download(server.url, target, md5=md5, mend="use --archive FILE", timeout=timeout)


def part_of(target, data=None):
    part = target.with_name(target.name + ".part")
    if data is not None:
        part.write_bytes(data)
    return part


def test_a_whole_download(server, target):
    server.data = DATA
    fetch(server, target)
    assert target.read_bytes() == DATA and not part_of(target).exists()
    assert server.requests == [None]


def test_a_broken_connection_keeps_the_part_and_the_next_call_goes_on(server, target):
    server.data, server.stop_after = DATA, 4321
    message = fails(fetch, server, target)
    assert server.url in message and "4,321 of 10,240" in message and "--archive FILE" in message
    assert part_of(target).read_bytes() == DATA[:4321] and not target.exists()
    server.stop_after = None
    fetch(server, target)
    assert target.read_bytes() == DATA and not part_of(target).exists()
    assert server.requests == [None, "bytes=4321-"]


def test_a_server_that_falls_silent_is_given_up(server, target):
    server.data, server.stop_after, server.stall = DATA, 4321, True
    message = fails(fetch, server, target, timeout=0.2)
    assert server.url in message and "check the network" in message


def test_a_server_without_ranges_sends_the_whole_again(server, target):
    server.data, server.ranges = DATA, False
    part_of(target, DATA[:4321])
    fetch(server, target)
    assert target.read_bytes() == DATA and server.requests == ["bytes=4321-"]


def test_a_part_of_something_else_is_begun_again(server, target):
    server.data = DATA
    part_of(target, b"x" * 4321)
    fetch(server, target)
    assert target.read_bytes() == DATA and server.requests == ["bytes=4321-", None]


@pytest.mark.parametrize("length", [len(DATA), len(DATA) + 5])
def test_a_part_with_nothing_left_to_come_is_begun_again(server, target, length):
    server.data = DATA
    part_of(target, b"x" * length)
    fetch(server, target)
    assert target.read_bytes() == DATA and server.requests == [f"bytes={length}-", None]


def test_another_part_than_asked_for_is_not_appended(server, target):
    server.data, server.shift = DATA, 1
    part_of(target, DATA[:100])
    assert "another part" in fails(fetch, server, target)
    assert part_of(target).read_bytes() == DATA[:100] and not target.exists()


def test_a_wrong_md5_leaves_nothing(server, target):
    server.data = DATA[:-1]
    message = fails(fetch, server, target)
    assert MD5 in message and hashlib.md5(DATA[:-1]).hexdigest() in message
    assert not target.exists() and not part_of(target).exists()


def test_without_an_md5_anything_is_taken(server, target):
    server.data = b"anything"
    fetch(server, target, md5=None)
    assert target.read_bytes() == b"anything"


def test_an_error_of_the_server_is_said(server, target):
    server.status = 404
    message = fails(fetch, server, target)
    assert "404" in message and server.url in message and "--archive FILE" in message


def test_without_a_network_the_address_and_the_mend_are_said(server, target):
    server.server.socket.close()
    message = fails(fetch, server, target)
    assert server.url in message and "check the network" in message and "--archive FILE" in message
    assert list(target.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_not_blamed_on_the_network(server, target):
    server.data = DATA
    part_of(target).symlink_to(target.parent / "missing" / "file")
    message = fails(fetch, server, target)
    assert message.startswith("cannot write") and "network" not in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_not_blamed_on_the_network(server, target):
    server.data = DATA
    part_of(target).symlink_to("/dev/full")
    message = fails(fetch, server, target)
    assert message.startswith("cannot write") and "No space left" in message
