#!/usr/bin/env python3
"""table.py RESULTS.jsonl…: tables of the benchmark's results, in Markdown; medians, and the limits with their spread."""
import json
import statistics
import sys

RESULTS = []
for path in sys.argv[1:]:
    with open(path) as file:
        RESULTS += [json.loads(line) for line in file]
NUMBERS = sorted({result["n"] for result in RESULTS})


def values(what, n, key, **match):
    found = (result for result in RESULTS if result["what"] == what and result["n"] == n)
    found = (result[key] for result in found if all(result.get(name) == value for name, value in match.items()))
    return [value for value in found if value is not None]


def median(what, n, key, **match):
    found = values(what, n, key, **match)
    return statistics.median(found) if found else None


def number(value, digits=2):
    return "–" if value is None else f"{value:.{digits}f}"


def ratio(one, other):
    return "–" if not one or not other else f"{one / other:.1f}"


def spread(what, n):
    found = values(what, n, "seconds")
    return f"{number(median(what, n, 'seconds'))} ({min(found):.2f}–{max(found):.2f})" if found else "–"


def table(title, head, rows):
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'--:|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")


def cold():
    rows = []
    for n in NUMBERS:
        ours, cpu = median("cold", n, "seconds"), median("cold", n, "cpu_reported")
        rows.append((n, number(ours), number(median("cold", n, "reported")), spread("limit", n),
                     spread("limit + bird -p", n), spread("tools", n), ratio(ours, median("limit", n, "seconds")),
                     ratio(ours, median("limit + bird -p", n, "seconds")), ratio(ours, median("tools", n, "seconds")),
                     number(cpu), ratio(cpu, median("limit", n, "cpu"))))
    table("Cold start: seconds until kernel and BIRD have everything",
          ("N", "ours", "reported", "limit", "limit + `bird -p`", "tools", "ours / limit", "/ limit + `bird -p`",
           "/ tools", "CPU s", "CPU ours / limit"), rows)
    known = {result["n"]: result for result in RESULTS if result["what"] == "cold"}
    if 100 in known and 1000 in known:
        print(f"\nGrowth from 100 to 1000: time {ratio(known[1000]['seconds'], known[100]['seconds'])}, "
              f"CPU {ratio(known[1000]['cpu_reported'], known[100]['cpu_reported'])}")


def counts():
    names = ("bird_reloads", "bird_checks", "git_processes", "fsyncs_agent", "fsyncs_git", "netlink_writes",
             "netlink_calls", "state_writes", "bird_file_writes", "passes", "observations", "desired_builds",
             "opened_agent", "programs")
    rows = []
    for n in NUMBERS:
        counted = {}
        for found in values("cold", n, "counters") + values("traced", n, "calls"):
            counted.update(found)
        rss = median("cold", n, "rss_kb")
        rows.append((n, *(counted.get(name, "–") for name in names), number(rss and rss / 1024, 0)))
    table("Counts of the cold start, and memory", ("N", *names, "RSS MiB"), rows)


def later():
    rows = []
    for n in NUMBERS:
        for result in RESULTS:
            if result["n"] != n or result["what"] not in ("rest", "sync", "drift", "change", "restart"):
                continue
            seconds = result.get("seconds", result.get("settled"))
            wrote = ", ".join(f"{name} {value}" for name, value in result["wrote"].items())
            rows.append((n, f"{result['what']} {result.get('of', '')}".strip(), number(seconds, 3),
                         number(1000 * result["cpu"], 0), wrote or "nothing"))
    table("After the start: seconds until it is done (rest: from the start until nothing is written; its CPU is that of "
          "the minute after, and that of a sync, drift or change is what it takes more than rest)",
          ("N", "what", "s", "CPU ms", "wrote"), rows)


def memory():
    rows = [(result["n"], result["minutes"], result["changes"], result["first_kb"], result["last_kb"],
             f"{100 * result['growth']:.0f} %")
            for result in RESULTS if result["what"] == "changes" and result["growth"] is not None]
    if rows:
        table("Memory over a time of changes", ("N", "minutes", "changes", "kB after a minute", "kB at the end", "growth"),
              rows)


cold()
counts()
later()
memory()
