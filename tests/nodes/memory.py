"""How much memory a rehearsal takes on a real node, seen from outside."""

import pathlib
import threading
import time


class Memory:
    """The most memory that a node's processes had at once, in bytes, while it is asked: each page is shared out among
    those who have it mapped (`Pss` of proc(5)), so that the sum counts it once. Control groups would tell as much, where
    a node has their controller of memory."""

    def __init__(self, node):
        self.node, self.is_over = node, False
        self.release, self.updater = 0, 0
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.thread.join()

    def watch(self):
        while not self.is_over:
            release, updater = 0, 0
            for group in self.node.group.rglob("cgroup.procs"):
                for pid in read(group).split():
                    share = next((int(line.split()[1]) << 10 for line in read(f"/proc/{pid}/smaps_rollup").splitlines()
                                  if line.startswith("Pss:")), 0)
                    if "rehearsal" in group.parent.name:
                        release += share
                    elif read(f"/proc/{pid}/comm").startswith("cutover"):
                        updater += share
            self.release, self.updater = max(self.release, release), max(self.updater, updater)
            time.sleep(0.005)


def read(path):
    """What it says, or nothing once whoever it tells of is gone."""
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""
