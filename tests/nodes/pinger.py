"""Asks the applications of many nodes for their release, all the time and from outside, and says what was seen.

It answers what only an onlooker can: whether old and new ever ran at the same time, how long, how many nodes were out
of service at once, and for how long each. An answer proves that its release ran at some moment between question and
answer; all nodes share one clock.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time

CLONE_NEWNET = 0x40000000


class Pinger:
    """Asks each node so many times a second while the block runs."""

    def __init__(self, nodes, per_second=50):
        self.nodes, self.per_second = nodes, per_second

    def __enter__(self):
        words = [f"{node.name}:{node.leader}" for node in self.nodes]
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), str(self.per_second), *words],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        return self

    def __exit__(self, *_):
        # Name of a node: [when asked, when answered, release or None]; of one release in a row, the first and the last.
        self.seen = json.loads(self.process.communicate("", timeout=60)[0])

    def overlap(self, old, new):
        """For how many seconds old and new ran at the same time for certain, on whatever nodes; negative: the gap
        between them."""
        asked_old = max(asked for seen in self.seen.values() for asked, _, release in seen if release == old)
        told_new = min(told for seen in self.seen.values() for _, told, release in seen if release == new)
        return asked_old - told_new

    def together(self, good, sick):
        """The names of the nodes that ran one release while another one did, in a rollout that went there and back."""
        first = min(asked for seen in self.seen.values() for asked, _, release in seen if release == sick)
        last = max(told for seen in self.seen.values() for _, told, release in seen if release == sick)
        found = set()
        for name, seen in self.seen.items():
            for asked, told, release in seen:
                crosses = asked < first < told or asked < last < told
                if release == good and told >= first and asked <= last and not crosses:
                    found.add(name)
            # Between two answers of one release it ran all the time.
            for (_, begun, before), (ended, _, after) in zip(seen, seen[1:]):
                if before == after == good and ended >= first and begun <= last:
                    found.add(name)
        return sorted(found)

    def gaps(self):
        """Of each node, from its last answer to the first after that, where it did not answer or changed between."""
        found = {}
        for name, seen in self.seen.items():
            last, is_away = None, False
            for asked, told, release in seen:
                if release is None:
                    is_away = True
                    continue
                if last and (is_away or release != last[1]):
                    found.setdefault(name, []).append((last[0], told))
                last, is_away = (told, release), False
            if is_away and last:
                found.setdefault(name, []).append((last[0], seen[-1][1]))
        return found

    def longest(self):
        """The longest time that any node was away, in seconds."""
        return max((end - start for gaps in self.gaps().values() for start, end in gaps), default=0)

    def away_at_once(self):
        """The most nodes that did not answer at one moment."""
        changes = []
        for seen in self.seen.values():
            failed = [(asked, told) for asked, told, release in seen if release is None]
            for asked, told in failed:
                changes += [(asked, 1), (told, -1)]
        # A question that failed began after the service had gone; what ends at a moment ends before what begins.
        most = count = 0
        for _, change in sorted(changes):
            count += change
            most = max(most, count)
        return most

    def releases(self, node):
        """All releases that a node was seen to run, in that order."""
        found = []
        for _, _, release in self.seen[node.name]:
            if release and (not found or found[-1] != release):
                found.append(release)
        return found


def ask():
    try:
        with socket.create_connection(("127.0.0.1", 8080), timeout=2) as stream:
            stream.sendall(b"GET /version HTTP/1.0\r\n\r\n")
            answer = b""
            while part := stream.recv(4096):
                answer += part
        return answer.rpartition(b"\r\n")[2].decode() if answer.startswith(b"HTTP/1.0 200") else None
    except OSError:
        return None


def note(seen, answer):
    """Adds an answer. Of the same release again and again only the first and the last are kept, so that hours of a whole
    fleet are soon told; each failed question stays, because its time counts."""
    if answer[2] and [release for _, _, release in seen[-2:]] == [answer[2]] * 2:
        seen.pop()
    seen.append(answer)


def watch(leader, seen, pause, over):
    # The network of one node, for this thread alone.
    with open(f"/proc/{leader}/ns/net", encoding="ascii") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    while not over.is_set():
        asked = time.monotonic()
        release = ask()
        note(seen, (asked, time.monotonic(), release))
        over.wait(max(0, asked + pause - time.monotonic()))


def main(per_second, *words):
    over, seen, threads = threading.Event(), {}, []
    for word in words:
        name, leader = word.split(":")
        seen[name] = []
        threads.append(threading.Thread(target=watch, args=(leader, seen[name], 1 / float(per_second), over)))
        threads[-1].start()
    print("ready", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
