"""The figures of the demo: over the wire out of the VM, as a table, and as JSON."""

from __future__ import annotations

import json

from demo.figures import Opening, table
from demo.registry import Traffic
from demo.story import TerminalStory, WireStory, relay

COLD = Opening("cold", 2, 200 << 20, 4192, 0.956, 1.5, Traffic(11, 9, 2 << 20), Traffic(80, 78, 200 << 20))


def test_the_table_has_a_column_for_each_opening_and_shares_of_the_image():
    head, *rows = table([COLD.facts(), COLD.facts()])
    assert head == ["", "cold", "cold"]
    cells = {name.strip(): first for name, first, _ in rows}
    assert cells["attach to readable disk"] == "956 ms"
    assert cells["attach to first file"] == "1,500 ms"
    assert cells["requests until then"] == "11 (9 for blobs)"
    assert cells["fetched until then"] == "2.0 MiB (1.0 %)"
    assert cells["fetched for all files"] == "200.0 MiB (100.0 %)"
    assert cells["as status tells it"] == "-"


def test_figures_come_out_of_the_vm_as_they_were(capsys):
    WireStory().figures("uml", [COLD.facts()])
    sent = capsys.readouterr().out.splitlines(keepends=True)
    story = TerminalStory(on_stderr=True)
    others = relay(["[ 0.1] the kernel says something\n", *sent], story)
    assert others == ["[ 0.1] the kernel says something"]
    assert story.measured == json.loads(json.dumps({"door": "uml", "openings": [COLD.facts()]}))
    told = capsys.readouterr()
    assert told.out == ""
    assert "2.0 MiB (1.0 %)" in told.err
