"""``python -m tcmu_overlaybd``: the same as the ``tcmu-overlaybd`` program."""

import sys

from tcmu_overlaybd.cli import main

if __name__ == "__main__":
    sys.exit(main())
