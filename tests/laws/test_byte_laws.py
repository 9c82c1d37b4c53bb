"""Laws of bytes and text: nothing crashes a decoder, nothing has two spellings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import GATE, HOLDER, ROOT, WORKER, chain_of, patterns, terms

import forge
from moat import (
    AgentId,
    Checkpoint,
    ConsistencyProof,
    Grant,
    Host,
    Identity,
    InclusionProof,
    Limits,
    Message,
    Pattern,
    Policy,
    Secret,
    Token,
    canonicalize,
)
from moat._native import Gate
from moat.errors import MoatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHAIN = forge.first(ROOT, HOLDER).then(WORKER)
GATE_ID, ROOT_ID, WORKER_ID = (AgentId.from_bytes(k.public) for k in (GATE, ROOT, WORKER))
WIRE = forge.message(CHAIN, GATE.public, args=b'{"q":[1,"\xc3\xa9"]}', payload=b"payload")
CONTROL = forge.control(ROOT, "revoke", WORKER, GATE.public)
PEM = HOLDER.pem()


def attempt(call: Callable[[], Any]) -> Any:
    """The value, or None for a refusal; anything but a refusal fails the test."""
    try:
        return call()
    except MoatError:
        return None


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate with a few lines in its log."""
    signer = Identity.from_pem("gate", GATE.pem())
    folder = tmp_path_factory.mktemp("laws") / "log"
    gate = Gate.open(folder, signer, anchor=None, clock=lambda: forge.NOW)
    gate.arm(policy=Policy.CHAIN_ONLY, roots=[ROOT_ID], operators=[])
    wires = [forge.message(CHAIN, GATE.public, stream=bytes(16), number=n) for n in range(5)]
    assert all(decision.allowed for decision in gate.decide_many(wires, now=forge.NOW))
    yield gate
    gate.close()


CBOR = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=20)
    | st.sampled_from((ROOT.did, HOLDER.public, "any", "call", "tool://a/**", bytes(32))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-8, 20) | st.text(max_size=2), inner, max_size=4)
        | st.tuples(st.integers(0, 30), inner).map(lambda pair: cbor2.CBORTag(*pair))
    ),
    max_leaves=12,
)
ENCODED = CBOR.map(cbor2.dumps)
BYTES = st.binary(max_size=300) | ENCODED


@given(BYTES)
def test_no_bytes_crash_a_decoder(gate: Gate, data: bytes) -> None:
    for decode in (Token.from_bytes, Message.from_bytes, AgentId.from_bytes):
        attempt(lambda decode=decode: decode(data))
    attempt(lambda: Message.open(data, gate=GATE_ID, sender=WORKER_ID, now=forge.NOW))
    attempt(lambda: ROOT_ID.verify(data, data))
    before = len(gate)
    assert attempt(lambda: gate.control(data, now=forge.NOW)) is None
    decision = gate.decide(data, now=forge.NOW)
    assert not decision.allowed
    assert decision.stage == "authentic"
    assert decision.entry is None
    assert len(gate) == before, "what is not authentic leaves no line"


@given(st.text(max_size=80) | st.text("moat1.did:key:z6Mk-_=/*.%[]@ \n", max_size=80))
def test_no_text_crashes_a_parser(text: str) -> None:
    readers: tuple[Callable[[str], Any], ...] = (
        AgentId,
        Pattern,
        Token.parse,
        Checkpoint.parse,
        canonicalize,
        lambda text: Identity.from_pem("a", text),
        lambda text: Identity.from_pem(text, PEM),
        InclusionProof.parse,
        ConsistencyProof.parse,
        lambda text: Pattern("tool://**").matches(text),
        lambda text: Grant(text, {"call"}),
        lambda text: Grant("tool://a", {text}),
        lambda text: Limits(hosts=[text]),
        lambda text: Limits(read=[text], write=[text]),
        lambda text: Host(text, {"GET"}),
        lambda text: Host("https://a/**", {text}, [text]),
        lambda text: Secret(text, host="https://a", header="x"),
        lambda text: Secret("secret://a", host=text, header="x"),
        lambda text: Secret("secret://a", host="https://a", header=text),
        Policy,
    )
    for prefix in ("", "moat1.", "did:key:z6Mk", "tool://", "https://", "file:///"):
        for read in readers:
            attempt(lambda read=read, prefix=prefix: read(prefix + text))


@given(st.sampled_from([*forge.Claim]), CBOR)
def test_no_claim_of_a_signed_link_crashes(claim: forge.Claim, value: Any) -> None:
    claims = {claim: forge.Raw(cbor2.dumps(value))}
    data = forge.first(ROOT, HOLDER, forged={"claims": claims}).token
    token = attempt(lambda: Token.from_bytes(data))
    if token is not None:
        assert bytes(token) == data
        attempt(lambda: token.verify([ROOT_ID], gate=GATE_ID, now=forge.NOW))
        token.permits("call", "tool://search/web", {})


@given(st.sampled_from([*forge.Field]), CBOR)
def test_no_field_of_a_signed_request_crashes(gate: Gate, field: forge.Field, value: Any) -> None:
    fields = {field: forge.Raw(cbor2.dumps(value))}
    data = forge.message(CHAIN, GATE.public, stream=b"f" * 16, forged={"fields": fields})
    attempt(lambda: Message.from_bytes(data))
    decision = gate.decide(data, now=forge.NOW)
    assert decision.allowed == (decision.permit is not None)


@given(st.integers(1, 7), CBOR)
def test_no_field_of_a_signed_statement_crashes(gate: Gate, field: int, value: Any) -> None:
    # Signed by a stranger, so that none is ever taken up.
    fields = {field: forge.Raw(cbor2.dumps(value))}
    data = forge.control(forge.key("stranger"), "revoke", WORKER, GATE.public, fields=fields)
    assert attempt(lambda: gate.control(data, now=forge.NOW)) is None


@dataclass(frozen=True)
class Edit:
    """One edit of some bytes: what stands at a place is replaced."""

    place: float
    removed: int
    added: bytes

    def on(self, data: bytes) -> bytes:
        at = int(self.place * len(data))
        return data[:at] + self.added + data[at + self.removed :]


EDITS = st.builds(
    Edit,
    place=st.floats(0, 1, exclude_max=True),
    removed=st.integers(0, 3),
    added=st.binary(max_size=3),
)


@given(EDITS)
@example(Edit(0.999999, 0, b"\0"))
def test_an_edited_token_is_refused(edit: Edit) -> None:
    edited = edit.on(CHAIN.token)
    token = attempt(lambda: Token.from_bytes(edited))
    if token is None:
        assert edited != CHAIN.token
    elif edited == CHAIN.token:
        token.verify([ROOT_ID], gate=GATE_ID, now=forge.NOW)
    else:
        with pytest.raises(MoatError):
            token.verify([ROOT_ID], gate=GATE_ID, now=forge.NOW)


@given(EDITS)
def test_an_edited_message_is_refused(gate: Gate, edit: Edit) -> None:
    edited = edit.on(WIRE)
    if edited == WIRE:
        Message.open(edited, gate=GATE_ID, sender=WORKER_ID, now=forge.NOW)
        return
    opened = attempt(lambda: Message.open(edited, gate=GATE_ID, sender=WORKER_ID, now=forge.NOW))
    # An edit of the token alone is caught by its digest, which the request signs.
    assert opened is None
    decision = gate.decide(edited, now=forge.NOW)
    assert not decision.allowed
    assert decision.stage == "authentic"


@given(EDITS)
def test_an_edited_control_statement_is_refused(gate: Gate, edit: Edit) -> None:
    edited = edit.on(CONTROL)
    if edited != CONTROL:
        assert attempt(lambda: gate.control(edited, now=forge.NOW)) is None


@given(EDITS)
def test_an_edited_checkpoint_says_the_same_or_is_refused(gate: Gate, edit: Edit) -> None:
    checkpoint = gate.checkpoint()
    try:
        text = edit.on(str(checkpoint).encode()).decode()
    except UnicodeDecodeError:
        return
    edited = attempt(lambda: Checkpoint.parse(text))
    if edited is None or attempt(lambda: edited.verify(gate.id) or True) is None:
        return
    assert (edited.origin, edited.size, edited.root) == (
        checkpoint.origin,
        checkpoint.size,
        checkpoint.root,
    )


@given(EDITS)
def test_an_edited_proof_says_the_same_or_is_refused(gate: Gate, edit: Edit) -> None:
    checkpoint = gate.checkpoint()
    proof = gate.prove(3, size=checkpoint.size)
    try:
        text = edit.on(str(proof).encode()).decode()
    except UnicodeDecodeError:
        return
    edited = attempt(lambda: InclusionProof.parse(text))
    if edited is not None and not refuses(edited, checkpoint, gate.id):
        assert (edited.index, edited.line, edited.hashes) == (
            proof.index,
            proof.line,
            proof.hashes,
        )


@pytest.fixture(scope="module")
def early(gate: Gate) -> Checkpoint:
    """A checkpoint of the log before its last lines."""
    checkpoint = gate.checkpoint()
    wire = forge.message(CHAIN, GATE.public, stream=bytes(16), number=99)
    assert gate.decide(wire, now=forge.NOW).allowed
    return checkpoint


@given(EDITS)
def test_an_edited_consistency_proof_says_the_same_or_is_refused(
    gate: Gate, early: Checkpoint, edit: Edit
) -> None:
    new = gate.checkpoint()
    proof = gate.consistency(early.size, size=new.size)
    proof.verify(early, new, log=gate.id)
    try:
        text = edit.on(str(proof).encode()).decode()
    except UnicodeDecodeError:
        return
    edited = attempt(lambda: ConsistencyProof.parse(text))
    if edited is None or attempt(lambda: edited.verify(early, new, log=gate.id) or True) is None:
        return
    assert (edited.old, edited.new, edited.hashes) == (proof.old, proof.new, proof.hashes)


@given(st.integers(1, 8), st.integers(1, 8))
def test_proofs_have_one_text_form(gate: Gate, one: int, other: int) -> None:
    size = len(gate)
    old, new = sorted((min(one, size), min(other, size)))
    included = gate.prove(old - 1, size=size)
    assert str(InclusionProof.parse(str(included))) == str(included)
    consistent = gate.consistency(old, size=new)
    assert str(ConsistencyProof.parse(str(consistent))) == str(consistent)
    checkpoint = gate.checkpoint()
    assert Checkpoint.parse(str(checkpoint)) == checkpoint
    assert str(Checkpoint.parse(str(checkpoint))) == str(checkpoint)


def refuses(proof: InclusionProof, checkpoint: Checkpoint, log: AgentId) -> bool:
    """Whether a proof does not lead to this checkpoint."""
    return attempt(lambda: proof.verify(checkpoint, log=log) or True) is None


@given(terms())
def test_a_token_has_one_text_and_one_byte_form(stated: forge.Terms) -> None:
    data = chain_of([stated]).token
    token = Token.from_bytes(data)
    assert bytes(token) == data
    assert Token.parse(str(token)) == token
    assert str(token).startswith("moat1.")
    assert hash(Token.parse(str(token))) == hash(token)


@given(EDITS)
def test_an_edited_token_text_is_another_token_or_none(edit: Edit) -> None:
    token = Token.from_bytes(CHAIN.token)
    try:
        text = edit.on(str(token).encode()).decode()
    except UnicodeDecodeError:
        return
    edited = attempt(lambda: Token.parse(text))
    assert edited is None or (edited == token) == (text == str(token))


@given(st.binary(min_size=32, max_size=32))
def test_an_agent_id_has_one_text_and_one_byte_form(seed: bytes) -> None:
    identity = Identity.generate("a", rng=lambda size: seed[:size])
    assert AgentId(str(identity.id)) == identity.id
    assert AgentId.from_bytes(bytes(identity.id)) == identity.id
    assert Identity.from_pem("a", identity.to_pem()) == identity
    assert forge.did(bytes(identity.id)) == str(identity.id)


@given(st.binary(min_size=32, max_size=32))
def test_any_key_taken_as_bytes_reads_back_from_its_text(key: bytes) -> None:
    agent = attempt(lambda: AgentId.from_bytes(key))
    if agent is not None:
        assert bytes(agent) == key
        assert AgentId(str(agent)) == agent


@given(EDITS)
def test_an_edited_did_is_another_key_or_none(edit: Edit) -> None:
    text = str(ROOT_ID)
    try:
        edited = edit.on(text.encode()).decode()
    except UnicodeDecodeError:
        return
    other = attempt(lambda: AgentId(edited))
    assert other is None or (str(other) == edited and (other == ROOT_ID) == (edited == text))


@given(patterns())
def test_canonicalizing_what_is_canonical_changes_nothing(text: str) -> None:
    if "*" not in text:
        assert canonicalize(text) == text


@given(
    st.text("abAB%2eEfF./\\:?#@*é~ -_0", max_size=30), st.sampled_from(("https://", "tool://x/"))
)
def test_what_canonicalize_returns_is_canonical(text: str, scheme: str) -> None:
    repaired = attempt(lambda: canonicalize(scheme + text))
    if repaired is not None:
        assert canonicalize(repaired) == repaired
        assert "/../" not in f"{repaired}/"
