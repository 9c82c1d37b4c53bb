"""Reference models: slow, plain and written from the pages in spec/, as oracles for tests."""
