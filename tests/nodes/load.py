"""Visitors of a node's application: they ask all the time, and count what fails and how long nobody answers."""

import os
import socket
import subprocess
import sys
import threading
import time


class Load:
    """Asks for a page so many times a second while the block runs, from a process in the node's network. `away` is the
    longest time without an answer, `gone` all time without one that something failed in."""

    def __init__(self, node, port, per_second, page="/version"):
        self.node, self.port, self.per_second, self.page = node, port, per_second, page

    def __enter__(self):
        command = ["nsenter", f"--target={self.node.leader}", "--net", sys.executable, os.path.abspath(__file__),
                   str(self.port), str(self.per_second), self.page]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        return self

    def __exit__(self, *_):
        output = self.process.communicate("", timeout=60)[0].splitlines()
        asked, failed, slowest, away, gone = output[0].split()
        self.gone = float(gone)
        self.asked, self.failed, self.slowest, self.away = int(asked), int(failed), float(slowest), float(away)
        self.failures = output[1:]


def ask(port, page, seen):
    began = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
            stream.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
            answer = b""
            while part := stream.recv(4096):
                answer += part
        error = None if answer.startswith(b"HTTP/1.0 200") else f"answer {answer[:40]!r}"
    except OSError as failure:
        error = str(failure)
    seen.append((began, time.monotonic(), error))


def main(port, per_second, page):
    seen, threads = [], []
    over = threading.Event()
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    begin, number = time.monotonic(), 0
    while not over.is_set():
        thread = threading.Thread(target=ask, args=(port, page, seen))
        thread.start()
        threads.append(thread)
        number += 1
        time.sleep(max(0, begin + number / per_second - time.monotonic()))
    for thread in threads:
        thread.join()
    errors = [error for _, _, error in seen if error]
    answered = sorted(end for _, end, error in seen if not error)
    away = max((later - earlier for earlier, later in zip(answered, answered[1:])), default=0)
    # Between two good answers that something failed in, from the one to the other.
    bad = sorted(end for _, end, error in seen if error)
    gone = sum(later - earlier for earlier, later in zip(answered, answered[1:])
               if later - earlier > 5 / per_second or any(earlier < moment < later for moment in bad))
    print(len(seen), len(errors), max(end - start for start, end, _ in seen), away, gone)
    for error in sorted(set(errors))[:5]:
        print(error)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
