"""Attacks that must fail: one file per section of spec/threats.md."""
