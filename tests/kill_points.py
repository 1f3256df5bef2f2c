"""Every step at which a test has a process die (csrc/base/hook.h), and the test that walks it.

tests/unit/test_kill_point_table.py compares the table with the sources, so a new hook needs a row.
"""

from __future__ import annotations

# attach, in order, of a disk with an upper that is made for it
ATTACH = [
    "attach.reserved",
    "attach.upper_announced",
    "attach.upper_folder_made",
    "attach.upper_files_made",
    "attach.image_opened",
    "attach.config_saved",
    "attach.record_saved",
    "attach.name_put",
    "attach.kernel_done",
    "attach.settled",
]
DETACH = [
    "detach.noted",
    "detach.kernel_done",
    "detach.ring_released",
    "detach.image_closed",
    "state.file_removed",
]
START = ["start.netlink_blocked", "start.netlink_reset", "start.netlink_open", "start.files_removed"]

# The helper's steps, by what it does: "helper.<verb>.<step>".
HELPER_ATTACH = [
    *("backstore", "control", "enable", "cmd-time-out", "qfull-time-out", "serial", "fabric"),
    *("can_queue", "cmd_per_lun", "port", "tpg", "nexus", "lun", "link"),
    *("find", "disk-timeout", "read", "read-ahead"),
]
HELPER_DETACH = ["claim", "link", "lun", "nexus", "tpg", "port", "backstore", "hba"]

COMMIT = ["commit.written", "commit.synced", "commit.linked"]
CACHE = ["cache.data_made", "cache.map_made", "cache.chunk_written", "cache.chunk_noted"]
CACHE_DROP = ["cache.chunk_cleared", "cache.chunk_dropped"]
HELPER_OTHER = [
    "spare-flush",
    "dev-size",
    "rescan",
    "partitions",
    "fail-ring",
    "offline",
]  # harmless by halves

UPPER = [
    *("upper.reserved", "upper.data_written", "upper.record_written", "upper.map_inserted"),
    *("upper.flush.data_synced", "upper.flush.index_appended", "upper.flush.index_synced"),
    *("upper.flush.trimmed", "upper.flush.failed"),
    *("upper.close.flushed", "upper.close.marked_clean", "upper.close.removed"),
    *("journal.made", "journal.taken_over", "upper.open.replay_appended", "upper.open.replayed"),
    *("upper.open.journal_ready",),
    *("sparse.sectors_written", "sparse.sectors_replaced"),
    *("sparse.punched", "sparse.marked_open", "sparse.marked_clean"),
]
GROW = ["upper.grow.data_header", "upper.grow.index_header"]
SNAPSHOT = [
    *("snapshot.intent_written", "snapshot.upper_made", "snapshot.flushed", "snapshot.held"),
    *("seal.index_synced", "seal.trailer_written", "seal.trailer_synced", "seal.marked"),
    *("snapshot.image_replaced", "snapshot.config_switched", "snapshot.configs_switched"),
    *("snapshot.index_removed", "snapshot.completed", "snapshot.resumed"),
]

WALKED_BY = {
    **dict.fromkeys([*ATTACH, *DETACH, *START], "tests/vm/test_kill_points.py"),
    **dict.fromkeys(UPPER, "tests/fault/test_kill_at_every_step.py"),
    **dict.fromkeys(GROW, "tests/fault/test_kill_while_growing.py"),
    **dict.fromkeys(SNAPSHOT, "tests/fault/test_kill_in_snapshot.py"),
    **dict.fromkeys(COMMIT, "tests/fault/test_kill_while_committing.py"),
    **dict.fromkeys([*CACHE, *CACHE_DROP], "tests/remote/test_kill_while_caching.py"),
    "nbd.flush_reply": "tests/nbd/test_nbd_kill.py",
}
