"""200 devices at once with the hub netlink: see vm_storm."""

from __future__ import annotations

import pytest
from vm_storm import TIMEOUT_S, check_storm


@pytest.mark.timeout(TIMEOUT_S)
def test_200_devices_come_at_once_by_netlink_and_cost_nothing_when_idle(make_daemon, plain_layer, capsys):
    check_storm(make_daemon(config={"hub": "netlink"}, verbosity="-q"), plain_layer, capsys)
