"""Tries every path of some lists, below a folder and as it is, to read and to write.

Says how many there were, which gave another file than one below the folder, and what is left there.
"""

import contextlib
import os
import sys

root, lists = sys.argv[1:]
lines = set()
for name in sorted(os.listdir(lists)):
    if name != "SOURCE.txt":
        with open(os.path.join(lists, name), encoding="latin-1") as file:
            lines.update(file.read().splitlines())

read = []
for line in sorted(lines):
    for path in (os.path.join(root, line), line, f"{root}/{line}"):
        with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
            read.append(path)
        with contextlib.suppress(OSError, ValueError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.remove(path)
print(f"{len(lines)} paths, read {read}, left {os.listdir(root)}")
