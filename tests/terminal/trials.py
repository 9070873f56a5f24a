"""Trials of what a person sees and types. Each is a function; its name is what it shows."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from screen import Node

ESCAPE = "\x1b["


def check(is_so, text):
    if not is_so:
        raise AssertionError(text)


def bar_of(screen):
    return [line for line in screen.splitlines() if re.match(r"(unpacking|fetching) ", line)]


def shows_bytes_files_rate_and_time_left(node):
    node.release(2)
    wide = node.terminal(100)
    wide.start(node.line("stage"))
    screen = wide.wait_for(lambda screen: bar_of(screen), "a bar")
    shape = r"unpacking \S.* [\d.]+ [KM]iB/[\d.]+ MiB \d+/\d+ files [\d.]+ [KM]?i?B/s \d+s"
    screen = wide.wait_for(lambda screen: any(re.search(shape, line) for line in bar_of(screen)), f"a bar like {shape}")
    check(len(bar_of(screen)) == 1, f"more than one bar:\n{screen}")
    screen, code = wide.end()
    check(code == 0 and "release 2 is staged" in screen, screen)
    check(not bar_of(screen), f"the bar is still there:\n{screen}")


def fits_into_forty_columns(node):
    node.release(2)
    narrow = node.terminal(40)
    narrow.start(node.line("stage 2>&1"))
    screen = narrow.wait_for(lambda screen: bar_of(screen), "a bar")
    time.sleep(0.5)
    screen = narrow.screen(joined=False)
    check(len(bar_of(screen)) <= 1, f"the bar was broken into lines:\n{screen}")
    narrow.end()
    narrow.run(node.line("status"))
    body = [line for line in narrow.screen(joined=False).splitlines() if line.startswith("  ")]
    check(len(body) > 5 and all(len(line) <= 40 for line in body), f"lines are too long:\n{narrow.screen()}")
    check(any(re.match(r" {8,}\S", line) for line in body), f"nothing goes on below itself:\n{narrow.screen()}")


def says_nothing_but_results_into_a_pipe(node):
    node.release(2)
    terminal = node.terminal(100)
    terminal.run(f"{node.line('update')} >{node.place}/out 2>{node.place}/err")
    out, err = (node.place / "out").read_text(), (node.place / "err").read_text()
    check(out == "release 2 is committed\n", f"stdout is {out!r}")
    check(ESCAPE not in err and "\r" not in err and not bar_of(err), f"stderr is {err!r}")
    piped = subprocess.run(["sh", "-c", f"{node.line('log -n 1000')} | head -n 1; {node.line('list')} | true"],
                           capture_output=True, text=True)
    check(piped.stderr == "" and piped.stdout.count("\n") == 1, f"{piped}")


def tells_programs_how_far_it_is(node):
    node.release(2)
    done = subprocess.run(node.words("stage", "--progress", "json"), capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    check(lines and lines[-1]["done"], f"{done}")
    kept = json.load(open("docs/progress.schema.json"))
    for line in lines:
        check(set(line) == set(kept["properties"]) == set(kept["required"]), f"{line} is not what the schema says")
        check(line["activity"] in kept["properties"]["activity"]["enum"], f"{line}")
    last = lines[-1]
    check(last["bytes"] == last["total_bytes"] and last["files"] == last["total_files"], f"{last}")


def heeds_what_is_said_of_colours(node):
    headline = "release 1 runs"
    coloured = lambda terminal, more: terminal.run(node.line(f"status {more}"))[0] and any(
        "\x1b[" in line and headline in re.sub(r"\x1b\[[\d;]*m", "", line)
        for line in terminal.screen(escapes=True).splitlines())
    check(coloured(node.terminal(), ""), "no colour on a terminal")
    check(not coloured(node.terminal(), "--color never"), "a colour with `--color never`")
    check(not coloured(node.terminal(environment=["NO_COLOR=1"]), ""), "a colour with NO_COLOR")
    piped = lambda *words: subprocess.run(node.words("status", *words), capture_output=True, text=True).stdout
    check(ESCAPE not in piped() and ESCAPE in piped("--color", "always"), "colours in a pipe")


def completes(node, shell, begin):
    """What the Tab key makes of a word, in a shell that a person uses."""
    if not shutil.which(shell):
        return print(f"SKIPPED completions: needs {shell}", file=sys.stderr)
    terminal = node.terminal(100, environment=[f"PATH={os.path.dirname(node.program)}:{os.environ['PATH']}"])
    terminal.type(begin)
    terminal.type("echo rea''dy")
    terminal.wait_for(lambda screen: "\nready" in screen, "the shell")
    for typed, wanted in [("stat", "cutover status"), ("fleet prop", "cutover fleet propose"),
                          ("update --dry", "cutover update --dry-run"), ("status --progress js", "cutover status --progress json")]:
        terminal.tmux("send-keys", "-l", f"cutover {typed}")
        terminal.key("Tab")
        terminal.wait_for(wanted)
        terminal.key("C-u")


def completes_in_bash(node):
    completes(node, "bash", "exec bash --norc -i\nsource <(cutover completions bash)")


def completes_in_zsh(node):
    completes(node, "zsh", "exec zsh -f -i\nautoload -U compinit; compinit -D -u; source <(cutover completions zsh)")


def completes_in_fish(node):
    completes(node, "fish", "exec fish --no-config\ncutover completions fish | source")


def ends_a_watch_at_once(node):
    terminal = node.terminal()
    terminal.start(node.line("status --watch"))
    terminal.wait_for("free, ")
    terminal.key("C-c")
    check(terminal.end()[1] == 0, terminal.screen())


def stops_staging_and_goes_on_later(node):
    node.release(2)
    terminal = node.terminal()
    terminal.start(node.line("update"))
    terminal.wait_for(lambda screen: bar_of(screen), "a bar")
    terminal.key("C-c")
    screen, code = terminal.end()
    check(code == 1, f"exit code {code}\n{screen}")
    for wanted in ["error: interrupted while the release was staged", "state: release 1 is active", "hint: run it again"]:
        check(wanted in screen, f"`{wanted}` is missing:\n{screen}")
    node.is_at_rest(1)
    node.configure("1GiB", "200ms")
    check(node.command("update") == 0, "the next run did not succeed")
    node.is_at_rest(2)


def stops_waiting_for_a_moment(node):
    node.release(2)
    check(node.command("stage") == 0, "not staged")
    terminal = node.terminal()
    terminal.start(node.line("switch 2 --at 23h"))
    terminal.wait_for("is switched to at")
    terminal.key("C-c")
    screen, code = terminal.end()
    check(code == 1 and "interrupted before the switch began" in screen, f"{code}\n{screen}")
    node.is_at_rest(1)


def interrupted(node, phase, number=2):
    """Types Ctrl-C in a phase; the screen and the exit code."""
    terminal = node.terminal()
    terminal.start(node.line("update"))
    node.wait_for_phase(phase)
    terminal.key("C-c")
    return terminal.end()


def goes_back_when_interrupted_in_the_switch(node):
    node.release(2)
    stop = (node.place / "stop").read_text()
    node.script("stop", stop.removeprefix("#!/bin/sh\n") + "sleep 1")
    screen, code = interrupted(node, "switching")
    check(code == 10 and "going back to release 1" in screen, f"{code}\n{screen}")
    check("interrupted" in screen, screen)
    node.is_at_rest(1)
    check(not node.status()["bad"], "an operator's Ctrl-C banned the release")


def goes_back_when_interrupted_in_the_trial(node):
    node.release(2)
    node.configure("1GiB", "50s")
    screen, code = interrupted(node, "trial")
    check(code == 10 and "serves again and is healthy" in screen, f"{code}\n{screen}")
    node.is_at_rest(1)
    check(not node.status()["bad"], "an operator's Ctrl-C banned the release")


def finishes_going_back_when_interrupted_in_it(node):
    node.release(3, sick=True)
    stop = (node.place / "stop").read_text()
    node.script("stop", stop.removeprefix("#!/bin/sh\n") + "sleep 1")
    screen, code = interrupted(node, "rolling_back")
    check(code == 10, f"{code}\n{screen}")
    node.is_at_rest(1)
    check(node.status()["bad"], "the sick release is not banned")


def is_taken_up_after_a_second_interrupt(node):
    is_taken_up_after(node, lambda terminal: [terminal.key("C-c"), terminal.key("C-c"), terminal.key("C-c")])


def is_taken_up_after_a_termination(node):
    is_taken_up_after(node, lambda _: os.kill(node.status()["update"]["pid"], signal.SIGTERM))


def is_taken_up_after(node, end):
    node.release(2)
    node.configure("1GiB", "50s")
    # Going back takes a while, so that the second interrupt comes in time.
    stop = (node.place / "stop").read_text().removeprefix("#!/bin/sh\n")
    terminal = node.terminal()
    terminal.start(node.line("update"))
    node.wait_for_phase("trial")
    node.script("stop", stop + "sleep 3")
    end(terminal)
    deadline = time.monotonic() + 60
    while (status := node.status())["update"] and status["update"]["pid"] and time.monotonic() < deadline:
        time.sleep(0.1)
    check(status["update"] and status["update"]["pid"] is None, f"{status}")
    shown = subprocess.run(node.words("status"), capture_output=True, text=True).stdout
    check("interrupted: nobody works on it now" in shown and "cutover recover" in shown, shown)
    node.script("stop", stop)
    node.configure("1GiB", "200ms")
    code = node.command("rollback", "--no-hold")
    check(code in (0, 10), f"exit code {code}")
    node.is_at_rest(1)


def outlives_its_terminal(node):
    node.release(2)
    node.configure("1GiB", "2s")
    terminal = node.terminal()
    terminal.start(node.line("update"))
    node.wait_for_phase("trial")
    terminal.close()
    deadline = time.monotonic() + 60
    # After its commit, when nothing seems to be left to do, an update clears away what is surplus.
    while True:
        try:
            return node.is_at_rest(2)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


TRIALS = [
    (shows_bytes_files_rate_and_time_left, "700KiB"),
    (fits_into_forty_columns, "700KiB"),
    (says_nothing_but_results_into_a_pipe, "1GiB"),
    (tells_programs_how_far_it_is, "2MiB"),
    (heeds_what_is_said_of_colours, "1GiB"),
    (completes_in_bash, "1GiB"),
    (completes_in_zsh, "1GiB"),
    (completes_in_fish, "1GiB"),
    (ends_a_watch_at_once, "1GiB"),
    (stops_staging_and_goes_on_later, "300KiB"),
    (stops_waiting_for_a_moment, "1GiB"),
    (goes_back_when_interrupted_in_the_switch, "1GiB"),
    (goes_back_when_interrupted_in_the_trial, "1GiB"),
    (finishes_going_back_when_interrupted_in_it, "1GiB"),
    (is_taken_up_after_a_second_interrupt, "1GiB"),
    (is_taken_up_after_a_termination, "1GiB"),
    (outlives_its_terminal, "1GiB"),
]


def main(program, *words):
    failed = 0
    for trial, rate in TRIALS:
        if words and not any(word in trial.__name__ for word in words):
            continue
        node = Node(program, rate)
        try:
            trial(node)
            print(f"ok      {trial.__name__}", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"FAILED  {trial.__name__}: {error}", flush=True)
        finally:
            node.close()
    if failed:
        sys.exit(f"{failed} failed")


main(*sys.argv[1:])
