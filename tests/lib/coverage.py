"""Line coverage of a build made with VARIANT=cov: per file and per room, from gcov's own counts."""

import collections
import json
import os
import subprocess
import sys


def lines_of(build):
    """{source: {line: times run}} over all object files of the build."""
    counts = collections.defaultdict(lambda: collections.defaultdict(int))
    data = [os.path.join(d, f) for d, _, files in os.walk(build) for f in files
            if f.endswith(".gcda")]
    for path in sorted(data):
        done = subprocess.run(["gcov", "--json-format", "--stdout", path], capture_output=True,
                              text=True, check=True)
        for text in done.stdout.splitlines():
            for source in json.loads(text)["files"]:
                if source["file"].startswith(("/", "tests/")):
                    continue
                for line in source["lines"]:
                    counts[source["file"]][line["line_number"]] += line["count"]
    return counts


def main():
    counts = lines_of(sys.argv[1])
    if not counts:
        sys.exit("coverage: no counts; build with VARIANT=cov and run the tests first")
    rooms = collections.defaultdict(lambda: [0, 0])
    for source in sorted(counts):
        run, total = sum(1 for n in counts[source].values() if n), len(counts[source])
        print(f"{100 * run / total:6.1f} %  {run:5d} of {total:5d}  {source}")
        for room in (source.split("/")[0], "all rooms"):
            rooms[room][0] += run
            rooms[room][1] += total
    print()
    for room, (run, total) in rooms.items():
        print(f"{100 * run / total:6.1f} %  {run:5d} of {total:5d}  {room}")


if __name__ == "__main__":
    main()
