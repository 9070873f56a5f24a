#!/usr/bin/env python3
"""A real Prometheus fires the alert of each state of a node, and answers what the dashboard asks: `tests/alerts.py CUTOVER`.

The program itself brings a small application into each state and writes its metrics; a web server hands the files out,
one node each; Prometheus reads them with the rules of packaging/prometheus. Only time is shortened: `for:` is left out,
and what must have lasted for days is dated back in that node's file. Each node must raise its alerts and no others.
Needs Debian's `prometheus`; a few seconds.
"""

import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

PROMETHEUS = pathlib.Path(__file__).parent.parent / "packaging/prometheus"
RULES = PROMETHEUS / "cutover.rules.yml"
DAY = 86400
CONFIGURATION = """
root = "{home}/root"
[source]
url = "file://{home}/channel"
keys = ["{home}/team.pub"]
[store]
reserve = "1MiB"
[metrics]
textfile = "{home}/metrics"
[[data]]
path = "{home}/data"
on_rollback = "restore"
[service.command]
start = ["sh", "-c", "test ! -e breaks-all || rm -f {home}/well; echo new >>{home}/data/records"]
stop = ["true"]
[health]
min_healthy = "100ms"
deadline = "3s"
interval = "50ms"
fail_threshold = 2
[[health.check]]
name = "well"
exec = {{ command = ["sh", "-c", "test ! -e sick && test -e {home}/well"] }}
"""


class Node:
    """An application with release 1, and a release 2 that is published as it is said."""

    def __init__(self, cutover, home):
        self.cutover, self.home = cutover, home
        for directory in ["root", "channel", "data"]:
            (home / directory).mkdir(parents=True)
        (home / "data/records").write_text("old\n")
        (home / "well").touch()
        (home / "shop.toml").write_text(CONFIGURATION.format(home=home))
        self.run(0, "keygen", home / "team")
        self.publish(1)
        self.run(0, "update", "--now")

    def command(self, *words):
        return [str(word) for word in [self.cutover, "--config", self.home / "shop.toml", *words]]

    def run(self, expect, *words):
        done = subprocess.run(self.command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != expect:
            sys.exit(f"{self.home.name}: {words} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def publish(self, version, *files, expires="30d"):
        tree = self.home / f"build/{version}"
        tree.mkdir(parents=True)
        for name in ["VERSION", *files]:
            (tree / name).write_text(str(version))
        self.run(0, "pack", tree, "--product", "shop", "--version", version, "-o",
                 self.home / f"channel/shop-{version}.tar.zst")
        self.run(0, "publish", self.home / "channel", version, "--key", self.home / "team", "--expires", expires)

    def lower(self, metric, change):
        """Changes a value that only time or a full disk would change."""
        file = self.home / "metrics"
        text, count = re.subn(rf"^({metric}\{{.*\}}) (\S+)$", lambda line: f"{line[1]} {change(float(line[2]))}",
                              file.read_text(), flags=re.MULTILINE)
        assert count, f"{self.home.name}: no {metric}"
        file.write_text(text)

    def date_back(self, moment, seconds):
        self.lower(f"cutover_{moment}_timestamp_seconds", lambda value: value - seconds)


def is_well(node):
    node.publish(2)
    node.run(0, "update", "--now")


def needs_a_person(node):
    node.publish(2, "breaks-all")
    node.run(14, "update", "--now")


def is_interrupted(node):
    node.publish(2, "sick")
    # Two bad looks end the trial: the updater is killed before that, when the phase has begun.
    update = subprocess.Popen(node.command("update", "--now"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while 'state="trial"' not in (node.home / "metrics").read_text():
        time.sleep(0.002)
    update.send_signal(signal.SIGKILL)
    update.wait()
    node.date_back("update_deadline", 600)


def rolled_back(node):
    node.publish(2, "sick")
    node.run(10, "update", "--now")
    node.run(15, "update", "--now")


def expires_soon(node):
    node.publish(2, expires="2d")
    node.run(0, "update", "--now")


def has_expired(node):
    node.date_back("channel_expires", 31 * DAY)


def cannot_look(node):
    node.date_back("last_look", DAY + 60)


def is_behind(node):
    node.publish(2)
    node.run(0, "stage")
    node.run(0, "mark-bad", "2")
    node.run(15, "update", "--now")
    node.date_back("behind_since", 15 * DAY)


def is_held(node):
    node.run(0, "hold", "--reason", "a test")
    node.publish(2)
    node.run(15, "update", "--now")
    node.date_back("blocked_since", 15 * DAY)


def fails_already(node):
    (node.home / "well").unlink()
    node.publish(2)
    node.run(15, "update")


def has_no_room(node):
    # Nobody fills this machine's disk: as if half of the reserve were left.
    node.lower("cutover_disk_free_bytes", lambda _: 1 << 19)


def set_data_aside(node):
    node.publish(2)
    node.run(0, "update", "--now")
    node.run(0, "rollback", "--reason", "a test", "--no-hold")


def unit_is_down(node):
    # No systemd here: the line as the tests on real nodes see it.
    with open(node.home / "metrics", "a", encoding="ascii") as file:
        file.write('cutover_unit_ok{app="shop",unit="shop.service"} 0\n')


STATES = {
    is_well: set(),
    needs_a_person: {"CutoverNeedsPerson", "CutoverDataSetAside"},
    unit_is_down: {"CutoverUnitDown"},
    is_interrupted: {"CutoverRecoveryPending"},
    rolled_back: {"CutoverRolledBack", "CutoverDataSetAside"},
    expires_soon: {"CutoverChannelExpires"},
    has_expired: {"CutoverChannelExpires", "CutoverChannelExpired"},
    cannot_look: {"CutoverSourceUnreachable"},
    is_behind: {"CutoverBehind"},
    is_held: {"CutoverBlockedLong"},
    fails_already: {"CutoverBaselineFailing"},
    has_no_room: {"CutoverDiskLow"},
    set_data_aside: {"CutoverDataSetAside"},
}


class Handed(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def ask(port, what, **query):
    address = f"http://127.0.0.1:{port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=5) as answer:
        return json.load(answer)["data"]


# What the panels say of these nodes: with a query that cannot fail to answer ("or vector(0)") an answer is not enough.
COUNTS = {
    "Nodes": len(STATES),
    "Need a person": 1,
    "Units down": 1,
    "Updates under way": 1,
    "Behind": 6,  # rolled back (three of them), banned, held, with a failing baseline
    "Held": 1,
}


def look(port, since):
    """What is wrong with the answers that the dashboard gets, for all applications and nodes, in one interval from `since`."""
    interval = f"{int(time.time() - since) + 1}s"
    board = json.loads((PROMETHEUS / "grafana-dashboard.json").read_text())

    def asked(query):
        query = re.sub(r"\$(app|instance)", ".*", query).replace("$__interval", interval)
        return ask(port, "query", query=query)["result"]

    wrong = []
    for panel in board["panels"]:
        title = panel["title"]
        for target in panel["targets"]:
            answer = asked(target["expr"])
            if not answer:
                wrong.append(f"{title}: asks in vain: {target['expr']}")
            # Rows are put together by all the labels that two answers share.
            if panel["type"] == "table" and any("__name__" in row["metric"] for row in answer):
                wrong.append(f"{title}: no row of another metric has this name: {target['expr']}")
            nodes = [row["metric"].get("instance") for row in answer]
            if panel["type"] == "table" and len(set(nodes)) != len(nodes):
                wrong.append(f"{title}: more than one row for a node: {target['expr']}")
        if title in COUNTS and panel["type"] == "stat":
            counted = [float(row["value"][1]) for row in answer]
            if counted != [COUNTS[title]]:
                wrong.append(f"{title}: {counted}, not {COUNTS[title]}")
        if title == "How updates ended" and not any(float(row["value"][1]) for row in answer):
            wrong.append(f"{title}: nothing ended")
    wrong += [f"annotation {mark['name']}: {mark['expr']}" for mark in board["annotations"]["list"] if not asked(mark["expr"])]
    for variable in board["templating"]["list"]:
        named = re.match(r"label_values\((.*), (\w+)\)$", variable["query"])
        if named and not any(named[2] in row["metric"] for row in asked(named[1])):
            wrong.append(f"variable {variable['name']}: {variable['query']}")
    return wrong


def watch(work, names, update):
    """What a Prometheus fires for each node, and what is wrong on the dashboard after one more update: asked for until both
    are as they should be, or for half a minute each."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handed, directory=work))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rules = re.sub(r"^ *for: .*\n", "", RULES.read_text(), flags=re.MULTILINE)
    (work / "rules.yml").write_text(rules)
    targets = "".join(f"""
      - targets: ["127.0.0.1:{server.server_port}"]
        labels: {{ __metrics_path__: "/{name}/metrics", instance: "{name}" }}""" for name in names)
    (work / "prometheus.yml").write_text(f"""
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: [rules.yml]
scrape_configs:
  - job_name: cutover
    static_configs:{targets}
""")
    port = free_port()
    with open(work / "prometheus.log", "w", encoding="utf-8") as log:
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/tsdb",
             f"--web.listen-address=127.0.0.1:{port}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        end, fired = time.monotonic() + 30, {}
        while time.monotonic() < end:
            time.sleep(0.5)
            try:
                alerts = ask(port, "alerts")["alerts"]
            except OSError:
                continue
            fired = {name: set() for name in names}
            for alert in alerts:
                fired[alert["labels"]["instance"]].add(alert["labels"]["alertname"])
            if fired == {state.__name__: alerts for state, alerts in STATES.items()}:
                break
        # What an update changes must be seen before and after it.
        since = time.time()
        update()
        end, wrong = time.monotonic() + 30, ["not looked at"]
        while wrong and time.monotonic() < end:
            time.sleep(0.5)
            wrong = look(port, since)
        return fired, wrong
    finally:
        prometheus.terminate()
        prometheus.wait(30)
        server.shutdown()


def main(cutover):
    if not shutil.which("prometheus"):
        print("SKIPPED alerts: no prometheus here (Debian: prometheus)", file=sys.stderr)
        return 0
    ruled = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert ruled == set().union(*STATES.values()), "a rule without a state, or a state without its rule"
    with tempfile.TemporaryDirectory(prefix="cutover-alerts.") as directory:
        work = pathlib.Path(directory)
        nodes = {state: Node(os.path.abspath(cutover), work / state.__name__) for state in STATES}
        for state, node in nodes.items():
            state(node)

        def update():
            nodes[is_well].publish(3)
            nodes[is_well].run(0, "update", "--now")

        fired, on_dashboard = watch(work, [state.__name__ for state in STATES], update)
        wrong = 0
        for state, wanted in STATES.items():
            seen = fired.get(state.__name__, set())
            wrong += seen != wanted
            print(f"{state.__name__:16} {', '.join(sorted(seen)) or '-'}"
                  + (f"   WANTED {', '.join(sorted(wanted)) or '-'}" if seen != wanted else ""))
        for fault in on_dashboard:
            print(f"dashboard: {fault}")
        return 1 if wrong or on_dashboard else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
