# SPDX-License-Identifier: Apache-2.0
"""Write a rank table, the list of cards that older Ascend clusters start from (RANK_TABLE_FILE).

python -m src.tools.rank_table --servers 10.0.0.1 --output rank_table.json
python -m src.tools.rank_table --servers 10.0.0.1,10.0.0.2 --devices 0-7 --device_ips addresses.txt \\
    --output rank_table.json

The cards have a network of their own. Its addresses are in /etc/hccn.conf of each server, in lines such as
address_0=192.168.1.1. For one server, this machine's file is read. For several, give --device_ips: a copy of
each server's file, with commas between; or the addresses themselves, those of the first server first; or a
text file that lists them.
"""

from ..common.cli import parser, run
from ..common.files import write_json
from ..parallel.rank_table import HCCN, device_ips, device_numbers, make_rank_table


def main(arguments):
    flags = parser(__doc__)
    flags.add_argument("--servers", required=True, help="addresses of the servers, with commas between")
    flags.add_argument("--devices", default="0-7", help="cards of each server (0-7)")
    flags.add_argument("--device_ips", help=f"files or addresses ({HCCN} of this server)")
    flags.add_argument("--output", required=True, help="the file to write")
    own = flags.parse_args(arguments)
    servers = [server.strip() for server in own.servers.split(",")]
    devices = device_numbers(own.devices)
    table = make_rank_table(servers, devices, device_ips(own.device_ips, servers, devices))
    write_json(own.output, table)
    print(f"{own.output}: {len(servers)} servers of {len(devices)} devices")


if __name__ == "__main__":
    run(main)
