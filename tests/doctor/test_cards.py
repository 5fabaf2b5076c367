# SPDX-License-Identifier: Apache-2.0
"""Cards, their drivers and their links, by device files and tools that are made up."""

import json
import os

import pytest

from src.common.errors import UserError
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
    assert ascend.check_driver("01", tmp_path).state == "warning"
    server("npu-smi", prints(NPU_SMI.replace("HEALTH_OF_1", "OK")))
    finding = ascend.check_driver("01", tmp_path)
    assert (finding.state, finding.what) == ("ok", "25.2.0; npu-smi: 910B2, healthy")
    server("npu-smi", prints(NPU_SMI.replace("HEALTH_OF_1", "Alarm")))
    finding = ascend.check_driver("01", tmp_path)
    assert finding.state == "failure" and finding.what == "25.2.0; card 1 (910B2) is Alarm"
    assert "npu-smi info -t health -i 1" in finding.mend
    assert ascend.check_driver("0", tmp_path).state == "ok", "the sick one is left out"
    finding = ascend.check_driver("012", tmp_path)
    assert finding.state == "failure"
    server("npu-smi", prints(NPU_SMI.replace("HEALTH_OF_1", "OK")))
    finding = ascend.check_driver("012", tmp_path)
    assert (finding.state, finding.what) == ("warning", "25.2.0; npu-smi lists 2 of 3")
    server("npu-smi", prints("nothing"))
    finding = ascend.check_driver("0", tmp_path)
    assert (finding.state, finding.what) == ("warning", "25.2.0; npu-smi lists no card of 1")
    server("npu-smi", "echo 'dcmi module initialize failed. ret is -8005' >&2", 1)
    finding = ascend.check_driver("01", tmp_path / "nowhere")
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
    server("nvidia1")
    (finding,) = gpu.check_gpu(False)
    assert (finding.state, finding.what) == ("warning", "nvidia-smi lists 1 of 2")
    server("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'", 18)
    (finding,) = gpu.check_gpu(False)
    assert finding.state == "failure" and "version mismatch" in finding.what


@pytest.mark.parametrize(
    ("asked", "used", "states"),
    [
        (False, "CPU", ["warning"]), (False, "GPU", []), (False, None, []), (False, "Ascend", []),
        (True, None, ["failure"]), (True, "GPU", []),
    ],
)  # fmt: skip
def test_a_gpu_that_mindspore_does_not_use(server, asked, used, states):
    assert list(gpu.check_use(asked, used)) == []
    server("nvidia0")
    found = list(gpu.check_use(asked, used))
    assert [finding.state for finding in found] == states
    assert all("H100" in finding.mend and "ONNX" in finding.mend for finding in found)


@pytest.mark.parametrize(
    ("visible", "cards"), [(None, "246"), ("2,0", "62"), ("1,9,0", "4"), ("-1", ""), ("0, 1", "24")]
)
@pytest.mark.parametrize("target", ["Ascend", "GPU"])
def test_cards_that_a_variable_leaves(server, monkeypatch, target, visible, cards):
    for card in "246":
        server({"Ascend": "davinci", "GPU": "nvidia"}[target] + card)
    if visible is not None:
        monkeypatch.setenv(checks.VISIBLE[target], visible)
    assert "".join(checks.visible_cards(target)) == cards


def test_no_gpu_and_gpus_by_their_names(server, monkeypatch):
    server("nvidia0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert checks.visible_cards("GPU") == []
    with pytest.raises(UserError, match="shows none that CUDA_VISIBLE_DEVICES='' leaves"):
        checks.check_cards("GPU", 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-6f1c")
    assert checks.visible_cards("GPU") == ["GPU-6f1c"]


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
    assert links.check_addresses("01", warning).state == "warning"
    (tmp_path / "hccn.conf").write_text("address_0=192.168.1.1\nnetmask_1=255.255.0.0\n")
    found = links.check_addresses("01", failure)
    assert (
        found.state == "failure"
        and found.what.endswith("no address of card 1")
        and "-i 1 -ip -s" in found.mend
    )
    (tmp_path / "hccn.conf").write_text("address_0=192.168.1.1\naddress_1=192.168.1.2\n")
    assert links.check_addresses("01", failure).state == "ok"

    assert links.check_card_links("01", failure).what == "no hccn_tool to ask for them"
    server("hccn_tool", "echo link status: UP")
    assert links.check_card_links("01", failure).what == "up on all 2 cards"
    server("hccn_tool", '[ "$2" = 1 ] && echo link status: DOWN || echo link status: UP')
    found = links.check_card_links("01", failure)
    assert (found.state, found.what) == ("failure", "down: card 1")
    assert links.check_card_links("02", failure).state == "ok"
    server("hccn_tool", "echo no permission >&2", 1)
    assert links.check_card_links("01", failure).state == "warning"


def test_the_library_of_collectives(server, tmp_path):
    home = {"ASCEND_HOME_PATH": str(tmp_path)}
    assert links.check_hccl(home).state == links.check_hccl({}).state == "failure"
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libhccl.so").touch()
    assert links.check_hccl(home).state == "ok"


def servers_of(target="CPU", cards=2, **environment):
    return list(links.check_servers(target, cards, environment))


def test_a_rank_table(server, tmp_path):
    path = tmp_path / "table.json"
    (found,) = servers_of("Ascend", RANK_TABLE_FILE=str(path))
    assert found.state == "failure" and "cannot be read" in found.what
    assert "src.tools.rank_table" in found.mend
    rows = [{"device_id": str(card), "rank_id": str(card)} for card in range(2)]
    path.write_text(json.dumps({"server_list": [{"server_id": "127.0.0.1", "device": rows}]}))
    (found,) = servers_of("Ascend", RANK_TABLE_FILE=str(path))
    assert (found.state, found.what) == ("ok", f"{path}: 2 cards of 127.0.0.1, 2 in all")
    (found,) = servers_of("Ascend", 4, RANK_TABLE_FILE=str(path))
    assert "DEVICE_NUM is 4" in found.what
    (found,) = servers_of("CPU", RANK_TABLE_FILE=str(path))
    assert (found.state, found.mend) == ("failure", "unset one")


def test_the_place_where_servers_meet(server):
    assert servers_of() == []
    port = checks.free_port("127.0.0.2")
    here = {"NODE_NUM": "2", "MASTER_ADDR": "127.0.0.2", "MASTER_PORT": str(port)}
    (found,) = servers_of(**here, NODE_RANK="0")
    assert (found.state, found.what) == ("ok", f"this is NODE_RANK 0; they meet at 127.0.0.2:{port}")


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"NODE_NUM": "two"}, "NODE_NUM is 'two'"),
        ({"NODE_RANK": "1"}, "NODE_RANK is 1 of 1 server"),
        ({"NODE_NUM": "2"}, "NODE_NUM is 2"),
        ({"NODE_NUM": "2", "NODE_RANK": "2"}, "NODE_NUM is 2"),
        ({"NODE_NUM": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}, "NODE_NUM is 2"),
        ({"NODE_NUM": "2", "NODE_RANK": "0", "MASTER_ADDR": "192.0.2.1"}, "is not an address of this server"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT is '65536'"),
        ({"MASTER_ADDR": "server..1"}, "MASTER_ADDR server..1 is no address"),
    ],
)
def test_what_the_launcher_refuses_is_a_failure(server, environment, what):
    (found,) = servers_of(**environment)
    assert found.state == "failure" and what in found.what and found.mend


def test_which_lines_are_said_for_which_target(server):
    def names(target, **environment):
        return [finding.name for finding in links.check_links(target, 2, environment)]

    assert names("CPU") == ["launcher"]
    assert names("CPU", NODE_NUM="2") == ["launcher", "servers"]
    assert names("Ascend") == ["launcher", "HCCL"]
    for card in ("davinci1", "davinci2", "davinci3"):
        server(card)
    assert names("Ascend") == ["launcher", "HCCL", "addresses", "card links"]
    assert names("Ascend", RANK_TABLE_FILE="x", NODE_NUM="2")[1] == "rank table"
    several = {f.name: f for f in links.check_links("Ascend", 2, {"NODE_NUM": "2"})}
    alone = {f.name: f for f in links.check_links("Ascend", 4, {})}
    assert (several["addresses"].state, alone["addresses"].state) == ("failure", "warning")
    assert several["addresses"].what.endswith("no address of card 1, 2")
    assert alone["launcher"].mend == "give a smaller --cards (DEVICE_NUM of the scripts)"
