"""Every test runs on the test build of the extension, unless the environment says otherwise."""

import os

# Before anything imports tcmu_overlaybd.native, which decides by this once.
os.environ.setdefault("TCMU_OVERLAYBD_TEST_BUILD", "1")
