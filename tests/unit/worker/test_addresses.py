"""Addresses of machines, and the command that starts a job on several of them."""

import socket
from itertools import pairwise

import pytest

from jobs.settings import Settings
from worker import addresses, multi_gpu


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://u:p@127.0.0.1:5432/d", "127.0.0.1"),
        ("postgresql:///d?host=/run/postgresql", "127.0.0.1"),  # a socket of this machine
    ],
)
def test_the_address_is_that_of_the_way_to_the_database(url: str, address: str) -> None:
    assert addresses.own_address(Settings(database_url=url)) == address


def test_the_setting_is_used_as_it_is() -> None:
    assert addresses.own_address(Settings(worker_address="gpu-1.local")) == "gpu-1.local"


def test_loopback_addresses_are_known() -> None:
    assert addresses.is_loopback("127.0.0.1") and addresses.is_loopback("localhost")
    assert not addresses.is_loopback("10.0.0.1")


def test_processes_use_the_interface_that_leads_to_the_endpoint() -> None:
    variables = addresses.interface_variables("127.0.0.1:1234")
    assert variables == {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo"}


def test_the_port_is_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", addresses.free_port("127.0.0.1")))


def test_each_machine_starts_its_part_of_the_processes() -> None:
    command = multi_gpu.command("m", ["x"], 8, multi_gpu.MachineGroup(2, 1, "10.0.0.1:1234"))
    value = dict(pairwise(command))
    assert (value["--num_machines"], value["--machine_rank"], value["--num_processes"]) == ("2", "1", "16")
    assert (value["--main_process_ip"], value["--main_process_port"]) == ("10.0.0.1", "1234")
    assert command[-3:] == ["--module", "m", "x"]
    assert "--num_machines" not in multi_gpu.command("m", [], 2)
