"""Long runs: the same code that a few tests run for seconds, for as long as somebody likes."""
