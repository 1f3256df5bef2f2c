"""Structs are decoded by many threads at once, also the first time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "tcmu_overlaybd"

# In a process of its own, because what went wrong was a segmentation fault.
PROGRAM = """
import sys, threading
from tcmu_overlaybd.config.decoding import convert_value, decode_json

sys.setswitchinterval(1e-6)
FIELDS = "; ".join(f"f{i}: Annotated[int, msgspec.Meta(ge=0)] | None = None" for i in range(30))
SOURCE = f'''
import msgspec
from typing import Annotated
class Inner(msgspec.Struct): {FIELDS}
class Outer(msgspec.Struct): {FIELDS.replace("Annotated[int, msgspec.Meta(ge=0)]", "tuple[Inner, ...]")}
'''

def work(kind, together):
    together.wait()
    decode_json(b'{"f0": [{"f1": 1}]}', kind)
    convert_value({"f29": [{"f29": 1}]}, kind)

for _ in range(100):
    names = {}
    exec(SOURCE, names)
    together = threading.Barrier(4)
    threads = [threading.Thread(target=work, args=(names["Outer"], together)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("done")
"""


def test_four_threads_decode_a_struct_that_nobody_decoded_before():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_nothing_decodes_into_a_struct_in_another_way():
    pattern = re.compile(r"msgspec\.(json\.decode\(.*type=(?!dict)|convert\(|json\.Decoder\()")
    others = [path for path in PACKAGE.rglob("*.py") if pattern.search(path.read_text())]
    assert [path.name for path in others] == ["decoding.py"]
