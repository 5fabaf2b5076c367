# SPDX-License-Identifier: Apache-2.0
"""Cards, their drivers and their links, by device files and tools that are made up."""

import json
import os

import pytest

from src.doctor import ascend, commands, gpu, links
from src.doctor.finding import failure, warning
from src.parallel import rank_table
from src.parallel.launch import checks

# As npu-smi 25.2 prints it.
NPU_SMI = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.2.0                   Version: 25.2.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B2               | OK            | 135.9       39                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          33126/ 65536         |
+===========================+===============+====================================================+
| 1     910B2               | HEALTH_OF_1            | 103.1       37                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          32639/ 65536         |
+===========================+===============+====================================================+
| No running processes found in NPU 0                                                            |
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """server(name, text): a tool that prints text, or a device file; there is nothing else."""
    for name in ("dev", "bin"):
        (tmp_path / name).mkdir()
    for name in ("ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checks, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(rank_table, "HCCN", str(tmp_path / "hccn.conf"))
    monkeypatch.setattr(ascend, "SMI_FOLDERS", ())
    monkeypatch.setattr(links, "TOOL_FOLDERS", ("/nowhere",))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(name, text=None, code=0):
        if text is None:
            (tmp_path / "dev" / name).touch()
            return
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\nexit {code}\n")
        path.chmod(0o755)

    return put


def prints(text):
    return f"/bin/cat << 'END'\n{text}\nEND"


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_no_card_is_ok_unless_one_is_asked_for(server):
    (one,) = ascend.check_ascend(False)
    assert one.state == "ok" and "no card" in one.what
    found = by_name(ascend.check_ascend(True))
    assert found["Ascend"].state == "failure" and "--device /dev/davinci0" in found["Ascend"].mend
    assert [f.state for f in gpu.check_gpu(False)] == ["ok"]
    assert [f.state for f in gpu.check_gpu(True)] == ["failure"]


def test_device_files_that_are_missing_or_closed(server, monkeypatch):
    server("davinci0")
    finding = ascend.check_device_files(1)
    assert finding.state == "failure" and finding.what.endswith("davinci_manager")
    for name in ascend.HELPERS:
        server(name)
    assert ascend.check_device_files(1).what == "1 card"
    monkeypatch.setattr(ascend.os, "access", lambda path, mode: "hisi_hdc" not in str(path))
    finding = ascend.check_device_files(1)
    assert finding.state == "failure" and "hisi_hdc" in finding.what and "HwHiAiUser" in finding.mend


def test_the_driver_and_the_health_of_each_card(server, tmp_path):
    (tmp_path / "version.info").write_text("Version=25.2.0\nascendhal_version=7.35.23\n")
    assert ascend.check_driver(tmp_path).state == "warning"
    server("npu-smi", prints(NPU_SMI.replace("HEALTH_OF_1", "OK")))
    finding = ascend.check_driver(tmp_path)
    assert (finding.state, finding.what) == ("ok", "25.2.0; npu-smi: 910B2, healthy")
    server("npu-smi", prints(NPU_SMI.replace("HEALTH_OF_1", "Alarm")))
    finding = ascend.check_driver(tmp_path)
    assert finding.state == "failure" and finding.what == "25.2.0; card 1 (910B2) is Alarm"
    assert "npu-smi info -t health -i 1" in finding.mend
    server("npu-smi", "echo 'dcmi module initialize failed. ret is -8005' >&2", 1)
    finding = ascend.check_driver(tmp_path / "nowhere")
    assert finding.state == "failure" and "dcmi module initialize failed" in finding.what


def test_the_toolkit(tmp_path, monkeypatch):
    monkeypatch.setattr(ascend, "TOOLKITS", (str(tmp_path / "none"),))
    found = ascend.check_cann({})
    assert found.state == "failure" and "no toolkit" in found.what
    home = tmp_path / "ascend-toolkit" / "latest"
    (home / "compiler").mkdir(parents=True)
    monkeypatch.setattr(ascend, "TOOLKITS", (str(home),))
    found = ascend.check_cann({})
    assert found.state == "failure" and found.mend == f"source {home.parent}/set_env.sh"
    (home / "set_env.sh").touch()
    assert ascend.check_cann({}).mend == f"source {home}/set_env.sh"
    found = ascend.check_cann({"ASCEND_HOME_PATH": str(home)})
    assert found.state == "failure" and "ASCEND_OPP_PATH" in found.what
    assert ascend.check_cann({"ASCEND_HOME_PATH": "/nowhere"}).state == "failure"
    environment = {"ASCEND_HOME_PATH": str(home), "ASCEND_OPP_PATH": str(home / "opp")}
    monkeypatch.setattr(ascend.importlib.util, "find_spec", lambda name: object())
    assert ascend.check_cann(environment).what == f"{home}, of an unknown version"
    for version, state in (("8.5.0", "ok"), ("8.2.RC1", "ok"), ("8.1.RC1", "warning")):
        (home / "compiler" / "version.info").write_text(f"Version={version}\n")
        found = ascend.check_cann(environment)
        assert found.state == state and found.what.startswith(version)


def test_a_gpu_and_its_driver(server):
    server("nvidia0")
    assert [f.state for f in gpu.check_gpu(False)] == ["failure"]
    server("nvidia-smi", prints("NVIDIA H100 80GB HBM3, 550.90.07, 81559 MiB"))
    (finding,) = gpu.check_gpu(False)
    assert finding.state == "ok"
    assert finding.what == "1 card: NVIDIA H100 80GB HBM3, 81559 MiB, driver 550.90.07"
    server("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'", 18)
    (finding,) = gpu.check_gpu(False)
    assert finding.state == "failure" and "version mismatch" in finding.what


@pytest.mark.parametrize(
    ("cards", "used", "count"), [(0, "CPU", 0), (1, "GPU", 0), (1, None, 0), (2, "CPU", 1)]
)
def test_a_gpu_that_mindspore_does_not_find(cards, used, count):
    found = list(gpu.is_unused(cards, used))
    assert len(found) == count and all(finding.state == "failure" for finding in found)


def test_a_command_that_hangs_or_cannot_start(server, tmp_path, monkeypatch):
    assert commands.ask(["nothing"]) is None
    monkeypatch.setattr(commands, "TIMEOUT", 0.2)
    server("slow", "exec /bin/sleep 60")
    assert commands.ask(["slow"]).error == "slow gives no answer in 0.2 s"
    (tmp_path / "bin" / "slow").write_text("no format")
    assert commands.ask(["slow"]).error.startswith("slow cannot be started")
    (tmp_path / "other").mkdir()
    server("quiet", ":", 3)
    os.rename(tmp_path / "bin" / "quiet", tmp_path / "other" / "quiet")
    assert commands.ask(["quiet"]) is None
    assert commands.ask(["quiet", "-x"], also_in=[str(tmp_path / "other")]).error == "quiet -x: it failed"


def test_addresses_and_links_of_the_cards(server, tmp_path):
    assert links.check_addresses(2, warning).state == "warning"
    (tmp_path / "hccn.conf").write_text("address_0=192.168.1.1\nnetmask_1=255.255.0.0\n")
    found = links.check_addresses(2, failure)
    assert (
        found.state == "failure"
        and found.what.endswith("no address of card 1")
        and "-i 1 -ip -s" in found.mend
    )
    (tmp_path / "hccn.conf").write_text("address_0=192.168.1.1\naddress_1=192.168.1.2\n")
    assert links.check_addresses(2, failure).state == "ok"

    assert links.check_card_links(2, failure).what == "no hccn_tool to ask for them"
    server("hccn_tool", "echo link status: UP")
    assert links.check_card_links(2, failure).what == "up on all 2 cards"
    server("hccn_tool", '[ "$2" = 1 ] && echo link status: DOWN || echo link status: UP')
    found = links.check_card_links(2, failure)
    assert (found.state, found.what) == ("failure", "down: card 1")
    server("hccn_tool", "echo no permission >&2", 1)
    assert links.check_card_links(2, failure).state == "warning"


def test_the_library_of_collectives(server, tmp_path):
    home = {"ASCEND_HOME_PATH": str(tmp_path)}
    assert links.check_hccl(home).state == links.check_hccl({}).state == "failure"
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libhccl.so").touch()
    assert links.check_hccl(home).state == "ok"


def test_a_rank_table(server, tmp_path):
    path = tmp_path / "table.json"
    found = links.check_rank_table(str(path), 2, None)
    assert (
        found.state == "failure" and "cannot be read" in found.what and "src.tools.rank_table" in found.mend
    )
    rows = [{"device_id": str(card), "rank_id": str(card)} for card in range(2)]
    path.write_text(json.dumps({"server_list": [{"server_id": "127.0.0.1", "device": rows}]}))
    assert links.check_rank_table(str(path), 2, None).state == "ok"
    assert "DEVICE_NUM is 4" in links.check_rank_table(str(path), 4, None).what


def test_the_place_where_servers_meet(server):
    assert "MASTER_ADDR is not set" in links.check_master({"NODE_NUM": "2"}).what
    found = links.check_master({"NODE_NUM": "2", "MASTER_ADDR": "192.0.2.1", "NODE_RANK": "0"})
    assert found.state == "failure" and "is not an address of this server" in found.what and found.mend
    port = checks.free_port("127.0.0.1")
    here = {"NODE_NUM": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    assert links.check_master({**here, "NODE_RANK": "0"}).what.endswith(f"they meet at 127.0.0.1:{port}")


def test_which_lines_are_said_for_which_target(server):
    def names(target, **environment):
        return [finding.name for finding in links.check_links(target, 2, environment)]

    assert names("CPU") == ["launcher"]
    assert names("CPU", NODE_NUM="2") == ["launcher", "servers"]
    assert names("Ascend") == ["launcher", "HCCL", "addresses", "card links"]
    assert names("Ascend", RANK_TABLE_FILE="x", NODE_NUM="2")[1] == "rank table"
    several = {f.name: f.state for f in links.check_links("Ascend", 2, {"NODE_NUM": "2"})}
    alone = {f.name: f.state for f in links.check_links("Ascend", 2, {})}
    assert (several["addresses"], alone["addresses"]) == ("failure", "warning")
    assert several["launcher"] == "failure"  # no card is there
