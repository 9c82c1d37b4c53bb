"""A real log's tree is the tree that another implementation (pymerkle) builds of its lines."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pymerkle
import pytest

import forge
from moat import AgentId, Identity, Policy
from moat._native import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT, AGENT, GATE = map(forge.key, ("root", "agent", "gate"))
ENTRIES = 70


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate that has decided enough messages for a tree of more than 64 leaves."""
    signer = Identity.from_pem("gate", GATE.pem())
    folder: Path = tmp_path_factory.mktemp("merkle") / "log"
    gate = Gate.open(folder, signer, anchor=None, clock=lambda: forge.NOW)
    gate.arm(policy=Policy.CHAIN_ONLY, roots=[AgentId.from_bytes(ROOT.public)], operators=[])
    chain, stream = forge.first(ROOT, AGENT), bytes(16)
    wires = [
        forge.message(chain, GATE.public, stream=stream, number=number) for number in range(ENTRIES)
    ]
    assert all(decision.allowed for decision in gate.decide_many(wires, now=forge.NOW))
    yield gate
    gate.close()


@pytest.fixture(scope="module")
def tree(gate: Gate) -> pymerkle.InmemoryTree:
    """The lines of the log as pymerkle's leaves."""
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for index in range(len(gate)):
        tree.append_entry(gate.read(index))
    return tree


def test_the_root_is_the_same(gate: Gate, tree: pymerkle.InmemoryTree) -> None:
    checkpoint = gate.checkpoint()
    assert checkpoint.size >= ENTRIES
    assert checkpoint.root == tree.get_root(checkpoint.size)


def test_every_inclusion_proof_is_the_same(gate: Gate, tree: pymerkle.InmemoryTree) -> None:
    count = len(gate)
    for size in {1, 2, 3, 7, 8, 33, 63, 64, 65, count}:
        for index in range(size):
            ours = gate.prove(index, size=size)
            theirs = tree.prove_inclusion(index + 1, size)
            assert list(ours.hashes) == theirs.path[1:], (index, size)
            assert ours.line == gate.read(index)


def test_every_consistency_proof_leads_to_both_roots(
    gate: Gate, tree: pymerkle.InmemoryTree
) -> None:
    # pymerkle proves consistency by other hashes than RFC 6962 does; the roots are the same.
    count = len(gate)
    roots = {size: tree.get_root(size) for size in range(1, count + 1)}
    for new in range(1, count + 1):
        for old in range(1, new + 1):
            hashes = list(gate.consistency(old, size=new).hashes)
            assert resolved(old, new, hashes, roots[old]) == (roots[old], roots[new]), (old, new)


def test_a_line_of_the_tree_is_proved_by_the_signed_checkpoint(
    gate: Gate, tree: pymerkle.InmemoryTree
) -> None:
    checkpoint = gate.checkpoint()
    proof = gate.prove(5, size=checkpoint.size)
    proof.verify(checkpoint, log=gate.id)
    theirs = tree.prove_inclusion(6, checkpoint.size)
    theirs.path = [tree.get_leaf(6), *proof.hashes]
    pymerkle.verify_inclusion(tree.get_leaf(6), checkpoint.root, theirs)


def resolved(old: int, new: int, hashes: list[bytes], root: bytes) -> tuple[bytes, bytes]:
    """The two roots that a consistency proof leads to (RFC 9162 §2.1.4.2)."""
    if old == new:
        return (root, root) if not hashes else (b"", b"")
    path = iter([root, *hashes] if old & (old - 1) == 0 else hashes)
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    older = newer = next(path)
    for sibling in path:
        if last == 0:
            return b"", b""
        if first & 1 or first == last:
            older, newer = node(sibling, older), node(sibling, newer)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            newer = node(newer, sibling)
        first, last = first >> 1, last >> 1
    return (older, newer) if last == 0 else (b"", b"")


def node(left: bytes, right: bytes) -> bytes:
    """An inner node (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\1" + left + right).digest()
