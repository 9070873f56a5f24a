"""Visitors of a node's application: they ask all the time, and count what fails and how long nobody answers."""

import os
import socket
import subprocess
import sys
import threading
import time


class Load:
    """Asks for `/version` so many times a second while the block runs, from a process in the node's network."""

    def __init__(self, node, port, per_second):
        self.node, self.port, self.per_second = node, port, per_second

    def __enter__(self):
        command = ["nsenter", f"--target={self.node.leader}", "--net", sys.executable, os.path.abspath(__file__),
                   str(self.port), str(self.per_second)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        return self

    def __exit__(self, *_):
        output = self.process.communicate("", timeout=60)[0].splitlines()
        asked, failed, slowest, away = output[0].split()
        self.asked, self.failed, self.slowest, self.away = int(asked), int(failed), float(slowest), float(away)
        self.failures = output[1:]


def ask(port, seen):
    began = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
            stream.sendall(b"GET /version HTTP/1.0\r\n\r\n")
            answer = b""
            while part := stream.recv(4096):
                answer += part
        error = None if answer.startswith(b"HTTP/1.0 200") else f"answer {answer[:40]!r}"
    except OSError as failure:
        error = str(failure)
    seen.append((began, time.monotonic(), error))


def main(port, per_second):
    seen, threads = [], []
    over = threading.Event()
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    begin, number = time.monotonic(), 0
    while not over.is_set():
        thread = threading.Thread(target=ask, args=(port, seen))
        thread.start()
        threads.append(thread)
        number += 1
        time.sleep(max(0, begin + number / per_second - time.monotonic()))
    for thread in threads:
        thread.join()
    errors = [error for _, _, error in seen if error]
    answered = sorted(end for _, end, error in seen if not error)
    away = max((later - earlier for earlier, later in zip(answered, answered[1:])), default=0)
    print(len(seen), len(errors), max(end - start for start, end, _ in seen), away)
    for error in sorted(set(errors))[:5]:
        print(error)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
