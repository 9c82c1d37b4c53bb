"""Reads every file of a folder and prints one JSON document about them.

The host's own Python must print the same: nothing here depends on where it runs.
"""

import csv
import hashlib
import json
import os
import random
import re
import sqlite3
import statistics
import sys
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

folder = sys.argv[1]
names = sorted(os.listdir(folder))
data = {name: open(os.path.join(folder, name), "rb").read() for name in names}

rows = list(csv.DictReader(data["sales.csv"].decode().splitlines()))
amounts = [Decimal(row["amount"]) for row in rows]
table = sqlite3.connect(":memory:")
table.execute("create table sale (city text, cents integer)")
cents = [(row["city"], int(amount * 100)) for row, amount in zip(rows, amounts, strict=True)]
table.executemany("insert into sale values (?, ?)", cents)
by_city = table.execute("select city, sum(cents) from sale group by city order by city").fetchall()
print(
    json.dumps(
        {
            "names": names,
            "sha256": {name: hashlib.sha256(text).hexdigest() for name, text in data.items()},
            "crc": zlib.crc32(zlib.compress(data["story.txt"], 9)),
            "words": len(re.findall(r"\w+", data["story.txt"].decode())),
            "longest": max(
                re.findall(r"\w+", data["story.txt"].decode()), key=lambda w: (len(w), w)
            ),
            "total": str(sum(amounts)),
            "mean": str(statistics.mean(amounts)),
            "median": str(statistics.median(amounts)),
            "by_city": by_city,
            "when": datetime.fromtimestamp(1_800_000_000, UTC).isoformat(),
            "third": str(Fraction(10, 30) + Fraction(1, 7)),
            "drawn": random.Random(7).sample(range(1000), 5),
            "power": pow(3, 10**6, 2**127 - 1),
        },
        sort_keys=True,
    )
)
