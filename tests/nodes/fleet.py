"""What must hold for a fleet of real nodes, told as scenarios, one after the other on one fleet.

`tests/nodes/run fleet` runs all on 10 nodes, `--nodes=50` on more, `--short` the few that belong to every change; words
choose scenarios by their names. A scenario's first line of documentation is the sentence that it proves.
"""

import pathlib
import re
import statistics
import sys
import threading
import time
import traceback

from fleet_app import Fleet
from fleet_cells import keeps_failure_in_its_cell, moves_cell_by_cell
from fleet_day import can_be_spoken_to
from lab import Failed, Lab, eventually
from pinger import Pinger

AT_ONCE = 2             # of the rolling scenarios


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def timed(node, *command):
    began = time.monotonic()
    status, output, errors = node.run(*command)
    return time.monotonic() - began, status, output + errors


def switches_together(fleet):
    """all vote, switch at one instant, and keep a good release"""
    old, new = fleet.apps[0].version(), fleet.publish()
    with Pinger(fleet.nodes, rate(fleet)) as pinger:
        began = time.monotonic()
        fleet.roll_out(new, 0)
        took = time.monotonic() - began
        fleet.all_serve(new)
    late = [fleet.fact(f"{node.name}.switched")["late_ms"] for node in fleet.nodes]
    return (f"kept after {took:.1f} s; pointers moved {min(late):.1f} to {max(late):.1f} ms after the instant; "
            f"mixed for {pinger.overlap(old, new) * 1000:.0f} ms, away for {pinger.longest() * 1000:.0f} ms at most")


def goes_back_together(fleet):
    """one node on which the new release is sick sends all back, and says why"""
    old, new = fleet.apps[0].version(), fleet.publish()
    sick = fleet.apps[-1]
    fleet.sicken(sick, new)
    with Pinger(fleet.nodes, rate(fleet)) as pinger:
        said = fleet.roll_out(new, 10)
        fleet.all_serve(old)
    check("503" in said and sick.node.name in said, f"the reason names neither node nor answer: {said}")
    for node in fleet.nodes:
        check(pinger.releases(node) in ([old, new, old], [old]), f"{node.name} ran {pinger.releases(node)}")
    return f"on the new release for {mixed(pinger, new):.1f} s"


def dies_before_it_holds(fleet):
    """a node that loses power between vote and switch: nobody switches, and it boots on the old release"""
    old, new = fleet.apps[0].version(), fleet.publish()
    victim = fleet.apps[-1].node
    with Pinger(fleet.nodes[:-1], rate(fleet)) as pinger:
        fleet.propose(new)
        fleet.await_fact(f"{victim.name}.vote")
        victim.crash()
        fleet.await_outcome("cancelled")
    for node in fleet.nodes[:-1]:
        check(pinger.releases(node) == [old], f"{node.name} ran {pinger.releases(node)}")
    victim.boot()
    fleet.all_serve(old)
    check(started(victim, new) == 0, "the new release was started")


def dies_before_the_switch(fleet):
    """a node that loses power when all have agreed: the others switch, miss it, and all are on the old release"""
    old, new = fleet.apps[0].version(), fleet.publish()
    victim = fleet.apps[-1].node
    with Pinger(fleet.nodes[:-1], rate(fleet)) as pinger:
        fleet.propose(new)
        fleet.await_fact("go")
        victim.crash()
        fleet.await_outcome("rolled back")
        time.sleep(3)
    victim.boot()
    fleet.all_serve(old)
    check(started(victim, new) == 0, "the new release was started")
    return f"others on the new release for {mixed(pinger, new):.1f} s"


def dies_after_the_switch(fleet):
    """a node that loses power on the new release and returns after all went back never starts it again"""
    old, new = fleet.apps[0].version(), fleet.publish()
    app = fleet.apps[-1]
    fleet.slow(app, fleet.longer + 1)
    fleet.propose(new)
    fleet.await_fact(f"{app.node.name}.switched")
    app.node.crash()
    check(app.active() == new, f"it lost power before its pointer had moved: {app.active()}")
    fleet.await_outcome("rolled back")
    app.node.boot()
    fleet.slow(app, None)
    fleet.all_serve(old)
    check(started(app.node, new) == 0, "the new release was started after the boot")
    check(started(app.node, old), "the old release was not started by the boot")


def holds_while_storage_hangs(fleet):
    """storage that hangs in the trial: commands answer at once, the node is in doubt, and keeps when it is back"""
    new = fleet.publish()
    node, last = fleet.nodes[1], fleet.apps[-1]
    fleet.slow(last, fleet.longer)
    fleet.propose(new)
    fleet.await_fact(f"{node.name}.report")
    node.cut_off("hang")
    try:
        fleet.await_outcome("kept")
        fleet.eventually("it is in doubt", 15, lambda: "in doubt" in node.run("cutover", "status")[1].lower())
        seconds, status, _ = timed(node, "cutover", "status")
        check(seconds < 1, f"`status` took {seconds:.1f} s")
        check(fleet.apps[1].active() == new, "it did not stay on what it vouched for")
    finally:
        node.join()
        fleet.slow(last, None)
    fleet.all_serve(new)
    return f"`status` in {seconds * 1000:.0f} ms, exit {status}"


def goes_back_by_hand_while_storage_hangs(fleet):
    """`rollback` on a node whose storage hangs: at once; afterwards the node follows the fleet again"""
    new = fleet.publish()
    fleet.roll_out(new, 0)
    fleet.all_serve(new)
    app = fleet.apps[1]
    app.node.call("systemctl", "stop", "cutover@app.timer", "cutover@app.service")
    app.node.cut_off("hang")
    try:
        bare, _, _ = timed(app.node, "true")
        seconds, status, said = timed(app.node, "cutover", "rollback")
        check(status == 0, f"`rollback` ended with {status}: {said}")
        looked = timed(app.node, "cutover", "status")[0]
        check(looked < 1, f"`status` took {looked:.1f} s")
    finally:
        app.node.join()
    check(app.active() != new, "it is not back")
    app.node.call("cutover", "unhold")
    app.node.call("cutover", "fleet", "resume")
    app.node.call("cutover", "mark-good", new)
    app.node.call("systemctl", "start", "cutover@app.timer")
    app.serves(new, 20 + fleet.patience)
    fleet.all_serve(new)
    return f"`rollback` in {(seconds - bare) * 1000:.0f} ms, `status` in {(looked - bare) * 1000:.0f} ms"


def learns_the_outcome_by_hand(fleet):
    """a node that stays cut off after its promise takes the outcome from a file that somebody carries"""
    new = fleet.publish()
    app, last = fleet.apps[1], fleet.apps[-1]
    fleet.slow(last, fleet.longer)
    fleet.propose(new)
    fleet.await_fact(f"{app.node.name}.report")
    app.node.cut_off("EIO")
    try:
        fleet.await_outcome("kept")
        fact = fleet.operator.call("cutover", "fleet", "export")
        app.node.write("/root/outcome", fact)
        app.node.call("cutover", "fleet", "import", "/root/outcome")
        app.at_rest(15 + fleet.patience)
        check(app.history()[-1]["outcome"] == "committed", f"it ended {app.history()[-1]}")
    finally:
        app.node.join()
        fleet.slow(last, None)
    fleet.all_serve(new)


def stage(app):
    """Stages what the channel names, when the update that looks for work is through (11: busy)."""
    def attempt():
        status, _, errors = app.node.run("cutover", "stage")
        check(status in (0, 11), f"{app.node.name}: cutover stage: status {status}: {errors.strip()[-800:]}")
        return status == 0
    eventually(f"{app.node.name} has staged", 120, attempt)


def takes_one_of_two_proposals(fleet):
    """of two operators who propose at the same time exactly one wins, and both are told"""
    old = fleet.apps[0].version()
    versions = []
    for _ in range(2):
        versions.append(fleet.publish())
        fleet.each(stage)
    ended = {}

    def propose(node, version):
        ended[version] = node.run("cutover", "fleet", "propose", version, "--wait", timeout=120 + fleet.patience)
    threads = [threading.Thread(target=propose, args=pair) for pair in zip(fleet.nodes, versions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = {version: status for version, (status, _, _) in ended.items()}
    winners = [version for version, code in codes.items() if code == 0]
    check(len(winners) == 1 and set(codes.values()) in ({0, 13}, {0, 15}), f"they ended {ended}")
    fleet.rollout += 1
    fleet.all_serve(winners[0])
    check(old != winners[0], "nothing has happened")
    lost = next(output + errors for version, (_, output, errors) in ended.items() if version != winners[0])
    return f"exit codes {sorted(codes.values())}; the other read: {lost.strip().splitlines()[0]}"


def refuses_a_wrong_clock(fleet):
    """a node whose clock is 3 s ahead does not hold the instant, and the measured offset is told; nobody switches"""
    old, new = fleet.apps[0].version(), fleet.publish()
    app = fleet.apps[-1]
    fleet.shift_clock(app, 3)
    try:
        # The one that runs already has the right time.
        app.node.call("systemctl", "stop", "cutover@app.service")
        app.node.call("systemctl", "start", "--no-block", "cutover@app.timer")
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            said = fleet.roll_out(new, 13)
    finally:
        fleet.shift_clock(app, 0)
    fleet.all_serve(old)
    told = re.search(r"its clock is ([0-9.]+) (ms|s) ahead", said)
    offset = float(told[1]) * {"ms": 1, "s": 1000}[told[2]] if told else 0
    check(app.node.name in said and 2800 <= offset <= 3200, f"the offset is not told: {said}")
    for node in fleet.nodes:
        check(pinger.releases(node) == [old], f"{node.name} ran {pinger.releases(node)}")
    return said.splitlines()[-1]


def never_overlaps(fleet):
    """with overlap `none` old and new never run at the same time, forward and back"""
    fleet.configure(more='overlap = "none"')
    old, new, sick = fleet.apps[0].version(), fleet.publish(), None
    try:
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            fleet.roll_out(new, 0)
            fleet.all_serve(new)
        gap = -pinger.overlap(old, new)
        check(gap > 0, f"old and new overlapped by {-gap * 1000:.0f} ms")
        sick = fleet.publish()
        fleet.sicken(fleet.apps[-1], sick)
        with Pinger(fleet.nodes, rate(fleet)) as back:
            fleet.roll_out(sick, 10)
            fleet.all_serve(new)
    finally:
        fleet.configure()
    check(not back.together(new, sick), f"{new} ran on {back.together(new, sick)} while {sick} did")
    return (f"{gap * 1000:.0f} ms between the last answer of the old and the first of the new; away for "
            f"{pinger.longest() * 1000:.0f} ms at most; on the way back too")


def rolls_few_at_once(fleet):
    """rolling: the canary first, then never more than N out of service, and all end on the new release"""
    fleet.configure("rolling", f'at_once = {AT_ONCE}\nwaves = [{{ nodes = ["n2"] }}, {{ percent = 100 }}]')
    old, new = fleet.apps[0].version(), fleet.publish(start_delay=1)
    try:
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            fleet.roll_out(new, 0, seconds=60 + 10 * len(fleet.nodes))
            fleet.all_serve(new, seconds=60)
    finally:
        fleet.configure()
    most = pinger.away_at_once()
    check(1 <= most <= AT_ONCE, f"{most} nodes were out of service at once")
    firsts = {name: min(asked for asked, _, release in seen if release == new) for name, seen in pinger.seen.items()}
    check(min(firsts, key=firsts.get) == "n2", f"the canary was not the first: {firsts}")
    return f"{most} of {len(fleet.nodes)} out of service at most, {AT_ONCE} allowed"


def halts_after_failures(fleet):
    """rolling: a sick release halts after the allowed failures, and the rest is never touched"""
    fleet.configure("rolling", f"at_once = {AT_ONCE}\nmax_failed = 1")
    old, sick = fleet.apps[0].version(), fleet.publish(sick_after=0.3)
    try:
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            said = fleet.roll_out(sick, 13)
            time.sleep(3)
    finally:
        fleet.configure()
    fleet.all_serve(old, was_called_off=True)
    tried = [node.name for node in fleet.nodes if sick in pinger.releases(node)]
    check(1 <= len(tried) <= AT_ONCE, f"tried by {tried}")
    check(pinger.away_at_once() <= AT_ONCE, f"{pinger.away_at_once()} nodes were out of service at once")
    return f"tried by {', '.join(tried)} of {len(fleet.nodes)}; {said.splitlines()[-1]}"


REHEARSED = '\n[rehearsal]\nnetwork = "private"\nmin_healthy = "300ms"\n'


def rehearses_before_it_votes(fleet):
    """with overlap `rehearsed` a release that is sick in one node's rehearsal is voted down, and no service was away"""
    fleet.configure(more='overlap = "rehearsed"' + REHEARSED)
    old, sick = fleet.apps[0].version(), fleet.publish()
    fleet.sicken(fleet.apps[-1], sick, "/etc/sick")
    try:
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            said = fleet.roll_out(sick, 13)
            fleet.all_serve(old, was_called_off=True)
        check("rehearsal failed" in said and fleet.nodes[-1].name in said, f"the reason names neither node nor rehearsal: {said}")
        untouched(pinger, fleet.nodes, old)
        new = fleet.publish()
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            fleet.roll_out(new, 0)
            fleet.all_serve(new)
        votes = [fleet.fact(f"{node.name}.vote") for node in fleet.nodes]
        check(all(vote["beside"] == "rehearsed" for vote in votes), f"they voted {votes}")
    finally:
        fleet.configure()
    return f"then a good one: mixed for {pinger.overlap(old, new) * 1000:.0f} ms, away for {pinger.longest() * 1000:.0f} ms at most"


def rehearses_before_its_turn(fleet):
    """rolling: a release that is sick in the first node's rehearsal halts, and no service was away"""
    fleet.configure("rolling", f'at_once = {AT_ONCE}\nwaves = [{{ nodes = ["n2"] }}, {{ percent = 100 }}]' + REHEARSED)
    old, sick = fleet.apps[0].version(), fleet.publish()
    fleet.sicken(fleet.apps[1], sick, "/etc/sick")
    try:
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            said = fleet.roll_out(sick, 13)
            fleet.all_serve(old, was_called_off=True)
    finally:
        fleet.configure()
    check("rehearsal failed" in said, f"the reason does not name the rehearsal: {said}")
    untouched(pinger, fleet.nodes, old)
    return said.splitlines()[-1]


def untouched(pinger, nodes, old):
    """Fails when any node was seen to be away, or to run something else."""
    for node in nodes:
        check(pinger.releases(node) == [old], f"{node.name} ran {pinger.releases(node)}")
        check(all(release for _, _, release in pinger.seen[node.name]), f"{node.name} was away")


def rate(fleet):
    """Questions per second and node, as many as two cores carry beside the fleet."""
    return min(50, 500 / len(fleet.nodes))


def mixed(pinger, new):
    """For how many seconds the new release was seen anywhere."""
    seen = [(asked, told) for answers in pinger.seen.values() for asked, told, release in answers if release == new]
    return max(told for _, told in seen) - min(asked for asked, _ in seen) if seen else 0


def started(node, version):
    """How often the application of that release was started since the node booted."""
    said = node.run("journalctl", "--no-pager", "-b", "-o", "cat", "-u", "app.service")[1]
    return said.splitlines().count(f"app {version} starts")


SCENARIOS = [switches_together, goes_back_together, dies_before_it_holds, dies_before_the_switch, dies_after_the_switch,
             holds_while_storage_hangs, goes_back_by_hand_while_storage_hangs, learns_the_outcome_by_hand,
             takes_one_of_two_proposals, refuses_a_wrong_clock, never_overlaps, rolls_few_at_once, halts_after_failures,
             rehearses_before_it_votes, rehearses_before_its_turn, moves_cell_by_cell,
             keeps_failure_in_its_cell, can_be_spoken_to]
SHORT = [switches_together, goes_back_together, dies_before_it_holds]


def measure_overlaps(fleet):
    """how long old and new run side by side, and how long each service is away, by overlap"""
    lines = []
    for overlap in ["brief", "none", "rehearsed"]:
        rehearsal = '\n[rehearsal]\nnetwork = "private"' if overlap == "rehearsed" else ""
        fleet.configure(more=f'overlap = "{overlap}"{rehearsal}')
        sides, away, longest = [], [], []
        for _ in range(10):
            old, new = fleet.apps[0].version(), fleet.publish()
            with Pinger(fleet.nodes, 2 * rate(fleet)) as pinger:
                fleet.roll_out(new, 0)
                fleet.all_serve(new)
            sides.append(pinger.overlap(old, new))
            gaps = [end - start for gaps in pinger.gaps().values() for start, end in gaps]
            away.append(statistics.median(gaps))
            longest.append(max(gaps))
        lines.append(f"{overlap}: side by side {statistics.median(sides) * 1000:.0f} ms (most {max(sides) * 1000:.0f}), "
                     f"away {statistics.median(away) * 1000:.0f} ms (most {max(longest) * 1000:.0f})")
    fleet.configure()
    return "; ".join(lines)


def run_all(fleet, scenarios):
    began = time.monotonic()
    fleet.begin()
    print(f"fleet  {len(fleet.nodes)} nodes have joined after {time.monotonic() - began:.0f} s", flush=True)
    for scenario in scenarios:
        began = time.monotonic()
        note = scenario(fleet)
        seconds = time.monotonic() - began
        print(f"fleet  ok   {seconds:5.1f} s  {scenario.__doc__}{f' ({note})' if note else ''}", flush=True)


def main(image, name, cutover, program, *words):
    lab = Lab(image, name)
    size = next((int(word[8:]) for word in words if word.startswith("--nodes=")), 3 if "--short" in words else 10)
    names = [word for word in words if not word.startswith("--")]
    scenarios = SHORT if "--short" in words else [measure_overlaps] if "--overlaps" in words else SCENARIOS
    scenarios = [one for one in scenarios if not names or any(name in one.__name__ for name in names)]
    # Each node's systemd watches files; the machine's usual limit is enough for twenty.
    watches = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
    before = watches.read_text()
    watches.write_text(str(max(int(before), 100 * size)))
    fleet = Fleet(lab, cutover, program, size)
    is_good, began = False, time.monotonic()
    try:
        run_all(fleet, scenarios)
        is_good = True
    except BaseException as error:
        where = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        print(f"fleet  FAIL {' > '.join(where)}: {error}", flush=True)
        if not isinstance(error, Failed):
            traceback.print_exc()
        for node in fleet.nodes[:2] + fleet.nodes[-1:]:
            if not node.leader:
                print(f"-- {node.name} does not run", flush=True)
                continue
            journal = node.run("journalctl", "--no-pager", "-n", "25", "-o", "short-precise", "-u", "cutover*", "-u", "app*")
            print(f"-- {node.name}\n{journal[1]}", flush=True)
    finally:
        lab.end()
        watches.write_text(before)
    print(f"{'passed' if is_good else 'FAILED'}: {len(scenarios)} scenarios on a fleet of {size} "
          f"in {time.monotonic() - began:.0f} s", flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
