"""Tests of the onlooker itself: what it keeps of its answers tells the same as all of them."""

import random
import unittest

from pinger import Pinger, note


class Node:
    def __init__(self, name):
        self.name, self.leader = name, 0


def history(chance):
    """Of some nodes, all answers of one that goes to the release `sick` and back, or stays where it is."""
    answers = {}
    for number in range(chance.randint(1, 4)):
        at, told = chance.random(), []
        words = ["good", None, "sick", None, "good"] if number == 0 or chance.random() < 0.7 else ["good"]
        for word in words:
            for _ in range(chance.randint(1, 6)):
                asked = at + chance.random() / 4
                at = asked + chance.random() / 8
                told.append((asked, at, word))
        answers[f"n{number}"] = told
    return answers


def kept(answers, whole):
    """An onlooker who has kept all of these answers, or what it keeps of them."""
    pinger = Pinger([Node(name) for name in answers])
    pinger.seen = {name: [] for name in answers}
    for name, told in answers.items():
        for answer in told:
            pinger.seen[name].append(answer) if whole else note(pinger.seen[name], answer)
    return pinger


class Onlooker(unittest.TestCase):
    def test_what_is_kept_tells_the_same(self):
        chance = random.Random(1)
        for _ in range(500):
            answers = history(chance)
            whole, short = kept(answers, True), kept(answers, False)
            for ask in (lambda it: it.overlap("good", "sick"), Pinger.gaps, Pinger.longest, Pinger.away_at_once,
                        lambda it: it.together("good", "sick"), lambda it: [it.releases(node) for node in it.nodes]):
                self.assertEqual(ask(whole), ask(short), answers)

    def test_equal_answers_are_kept_twice(self):
        seen = []
        for at in range(100):
            note(seen, (at, at + 0.5, None if at in (50, 51) else "good"))
        self.assertEqual([asked for asked, _, _ in seen], [0, 49, 50, 51, 52, 99])

    def test_who_runs_the_old_all_the_time_is_found(self):
        def span(begin, end, release):
            return [(at, at + 0.5, release) for at in range(begin, end)]
        there = span(0, 10, "good") + span(10, 12, None) + span(12, 20, "sick") + span(20, 22, None) + span(22, 30, "good")
        stays = kept({"n0": there, "n1": span(0, 30, "good")}, False)
        self.assertEqual(stays.together("good", "sick"), ["n1"])
        self.assertEqual(kept({"n0": there, "n1": list(there)}, False).together("good", "sick"), [])


if __name__ == "__main__":
    unittest.main()
