"""Tries to change everything below a folder, in every way that CPython knows, by a seed.

Says at its end how many tries there were.
"""

import contextlib
import os
import random
import shutil
import sys
import tempfile

root, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
choose = random.Random(seed)
FLAGS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR]
MORE = [os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NONBLOCK, os.O_SYNC, os.O_DIRECTORY]


def everything():
    """Name what is there, and what is not."""
    known = [root]
    for place, folders, files in os.walk(root):
        known += [os.path.join(place, name) for name in folders + files]
    known += [os.path.join(choose.choice(known), name) for name in ("new", "..", ".", "a/../b", "")]
    return known


def opened(path):
    flags = choose.choice(FLAGS)
    for flag in choose.sample(MORE, choose.randrange(4)):
        flags |= flag
    fd = os.open(path, flags, 0o777)
    tries = [
        lambda: os.write(fd, b"vandal"),
        lambda: os.pwrite(fd, b"vandal", 1),
        lambda: os.ftruncate(fd, 1),
        lambda: os.posix_fallocate(fd, 0, 1 << 16),
        lambda: os.utime(fd, ns=(1, 1)),
        lambda: os.writev(fd, [b"van", b"dal"]),
    ]
    for one in choose.sample(tries, 3):
        with contextlib.suppress(OSError, AttributeError, NotImplementedError, TypeError):
            one()
    os.close(fd)


def written(path):
    with open(path, choose.choice(["w", "a", "r+", "x", "wb", "ab", "r+b", "xb", "w+", "a+"])) as f:
        f.write("vandal" if "b" not in f.mode else b"vandal")


def added(path):
    with tempfile.NamedTemporaryFile(dir=path, delete=False) as file:
        file.write(b"vandal")


WAYS = [
    opened,
    opened,
    written,
    added,
    lambda path: os.remove(path),
    lambda path: os.rmdir(path),
    lambda path: os.mkdir(path + "-new"),
    lambda path: os.makedirs(path + "/a/b"),
    lambda path: os.truncate(path, 0),
    lambda path: os.chmod(path, 0o777),
    lambda path: os.utime(path, (0, 0)),
    lambda path: os.utime(path),
    lambda path: os.rename(path, path + "-moved"),
    lambda path: os.rename(path, choose.choice(everything())),
    lambda path: os.replace(path, choose.choice(everything())),
    lambda path: os.link(path, path + "-linked"),
    lambda path: os.symlink(path, path + "-symbolic"),
    lambda path: os.symlink("/", os.path.join(path, "way-out")),
    lambda path: shutil.copyfile(choose.choice(everything()), path),
    lambda path: shutil.rmtree(path),
    lambda path: shutil.move(path, choose.choice(everything())),
]

for _ in range(count):
    with contextlib.suppress(
        OSError, AttributeError, NotImplementedError, ValueError, shutil.Error
    ):
        choose.choice(WAYS)(choose.choice(everything()))
print(f"{count} tries")
