"""``python -m moat.cli``."""

from moat.cli import main

main()
