"""An agent writes Python; it runs in a sandbox, with the tools that its token names.

    pip install '.[python]' && python examples/code.py

The text below is what a model might have written: it calls two tools many times without a round
trip to the model for each, and tries a third that it was not given. Every call is decided by the
gate and is a line of the log. Compiling the interpreter takes half a minute, once.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import timedelta
from pathlib import Path

from moat import Grant, Limits, Moat, code, tool

WRITTEN = """
prices = {item: call_tool("price", item=item) for item in ("tea", "rice", "salt")}
cheap = min(prices, key=prices.get)
print(f"{cheap} is the cheapest of {len(prices)}, at {prices[cheap]}")
print(call_tool("order", item=cheap, count=3))
try:
    call_tool("pay", account="1234", amount=prices[cheap] * 3)
except Exception as error:
    print(error)
"""

PRICES = {"tea": 4, "rice": 2, "salt": 1}


@tool("tool://shop/price")
def price(item: str) -> int:
    """Give the price of an item."""
    return PRICES[item]


@tool("tool://shop/order")
def order(item: str, count: int = 1) -> str:
    """Order an item."""
    return f"ordered {count} of {item}"


@tool("tool://bank/pay")
def pay(account: str, amount: int) -> str:
    """Pay; nobody here is granted this."""
    return f"paid {amount} from {account}"


def main() -> None:
    """Make a state folder, let an agent in, and run what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, help="a state folder to keep; new or made before")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = given.state or Path(place) / "state"
        if not folder.exists():
            Moat.init(folder).close()
        with Moat.open(folder) as moat:
            shopper = moat.identity("shopper", create=True)
            token = moat.issue(
                holder=shopper.id,
                allow=[Grant("code://python", {"run"}), Grant("tool://shop/**", {"call"})],
                limits=Limits.standard(),
                expires_in=timedelta(hours=1),
                depth=1,  # for the key that the run gets for itself
            )
            session = moat.session(shopper, token)
            ran = code.run(session, WRITTEN, tools=[price, order, pay], cache=moat.cache)
            print(ran.check().stdout, end="")
            entries = moat.audit.entries(ran.permit.entry)
            calls = [entry["body"] for entry in entries if entry["kind"] == "decision"]
            for call in calls:
                print("allowed" if call["allow"] else "denied ", call["action"], call["resource"])


if __name__ == "__main__":
    main()
