//! Every bound on bytes that arrive from outside, in one place (spec/token.md, spec/message.md).

/// Bytes in one link (a `COSE_Sign1`).
pub const LINK_BYTES: usize = 8 * 1024;
/// Links in one chain.
pub const CHAIN_LINKS: usize = 16;
/// Bytes in one chain on the wire.
pub const CHAIN_BYTES: usize = 64 * 1024;
/// Bytes in one message on the wire, its token included.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// Grants in one link; denials are bounded by the same number.
pub const GRANTS: usize = 256;
/// Actions in one grant or denial.
pub const ACTIONS: usize = 32;
/// Host rules in one link, or paths in one list.
pub const SCOPES: usize = 64;
/// Methods in one host rule.
pub const METHODS: usize = 16;
/// Bytes in a method's name.
pub const METHOD_BYTES: usize = 16;
/// Address ranges in one host rule.
pub const RANGES: usize = 8;
/// Secrets in one link.
pub const SECRETS: usize = 16;
/// Bytes in a header's name.
pub const HEADER_BYTES: usize = 64;
/// Bytes in a pattern or a resource.
pub const PATTERN_BYTES: usize = 512;
/// Bytes in an action name.
pub const ACTION_BYTES: usize = 64;
/// Bytes of JSON arguments.
pub const ARGS_BYTES: usize = 32 * 1024;
/// Nesting of JSON arguments.
pub const ARGS_NESTING: usize = 32;
/// Largest magnitude of an integer in JSON arguments (RFC 8785 §3.2.2.3).
pub const ARGS_INTEGER: u64 = 1 << 53;
/// Causes in one message.
pub const CAUSES: usize = 16;
/// Labels in one message.
pub const LABELS: usize = 16;
/// Bytes in one label.
pub const LABEL_BYTES: usize = 64;
/// Bytes in one control statement.
pub const CONTROL_BYTES: usize = 1024;
/// Bytes in one registration, both signatures included.
pub const REGISTRATION_BYTES: usize = 2 * 1024;
/// Names in the registry of one gate.
pub const AGENTS: usize = 10_000;
/// Keys of one name, former ones included.
pub const AGENT_KEYS: usize = 64;
/// Requirements of attestations in one link.
pub const REQUIREMENTS: usize = 16;
/// Signatures on one envelope, keys that one is tried with, and signers of one requirement.
pub const SIGNATURES: usize = 16;
/// Seconds that a requirement may let an attestation be old: about ten years.
pub const ATTESTATION_SECONDS: u64 = 3_650 * 86_400;
/// Bytes in one envelope; it is part of one line of the log.
pub const ENVELOPE_BYTES: usize = 32 * 1024;
/// Subjects in one statement.
pub const SUBJECT_DIGESTS: usize = 256;
/// Files in one skill.
pub const SKILL_FILES: usize = 256;
/// Words of signers about digests that one gate keeps.
pub const VOUCHED: usize = 10_000;
/// Statements that one decision rests on; they are part of its line.
pub const STATEMENTS: usize = 128;
/// Seconds a message may live.
pub const MESSAGE_SECONDS: u64 = 300;
/// Seconds a control statement may live.
pub const CONTROL_SECONDS: u64 = 3600;
/// Seconds a clock may be ahead of ours (for `iat` and `nbf`, never for `exp`).
pub const SKEW_SECONDS: u64 = 60;
/// Seconds a permit may wait to be opened.
pub const PERMIT_SECONDS: u64 = 30;
/// Requests over the network that one permit lets go or has refused, each with a line of its own.
pub const PERMIT_REQUESTS: u64 = 10_000;
/// Latest time accepted anywhere (the last second of year 9999).
pub const TIME_MAX: u64 = 253_402_300_799;
/// Message numbers remembered behind the newest of a stream.
pub const REPLAY_WINDOW: u64 = 1024;
/// Live streams of one holder.
pub const STREAMS_PER_HOLDER: usize = 8;
/// Live streams of one gate.
pub const STREAMS: usize = 100_000;
/// Live links that one gate remembers.
pub const LINKS: usize = 8 * 65_536;
/// Live links below the holder of one first link: an eighth of all.
pub const LINKS_PER_PRINCIPAL: usize = LINKS / 8;
/// Bytes in one line of the log, its newline not counted.
pub const LINE_BYTES: usize = 65_535;
/// Nesting of the JSON body of one line of the log.
pub const LINE_NESTING: u32 = 32;
/// Bytes in the kind of a line of the log.
pub const KIND_BYTES: usize = 32;
/// Bytes in one item of a snapshot of the log's state.
pub const SNAPSHOT_ITEM_BYTES: usize = 48 * 1024;
/// Entries after which a checkpoint of the log is due.
pub const CHECKPOINT_ENTRIES: u64 = 256;
/// Bytes in one checkpoint (sixteen signatures of 5 kB each, as C2SP signed-note asks for).
pub const CHECKPOINT_BYTES: usize = 128 * 1024;
/// Signatures on one checkpoint.
pub const CHECKPOINT_SIGNATURES: usize = 16;
/// Hashes in one Merkle proof (a path in a tree of 2^63 leaves).
pub const PROOF_HASHES: usize = 63;
/// Rules of one monitor.
pub const RULES: usize = 64;
/// Bytes in the JSON of all rules of one monitor; it is part of one line of the log.
pub const RULES_BYTES: usize = 32 * 1024;
/// Bytes in the name of a rule, or of a state of its machine.
pub const RULE_NAME_BYTES: usize = 63;
/// Seconds that a monitor rule may look back.
pub const RULE_SECONDS: u64 = 7 * 86_400;
/// Largest limit or cost of a monitor rule.
pub const RULE_LIMIT: u64 = 1 << 53;
/// Steps in one sequence.
pub const RULE_STEPS: usize = 8;
/// Transitions in one machine.
pub const RULE_TRANSITIONS: usize = 64;
/// Agents that a monitor counts.
pub const SUBJECTS: usize = 65_536;
/// Agents that a monitor counts below the holder of one first link: an eighth of all.
pub const SUBJECTS_PER_PRINCIPAL: usize = SUBJECTS / 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds that are reckoned, written out as the spec has them.
    #[test]
    fn a_reckoned_bound_is_the_number_in_the_spec() {
        assert_eq!([LINK_BYTES, CHAIN_BYTES, MESSAGE_BYTES], [8_192, 65_536, 1_048_576]);
        assert_eq!([ARGS_BYTES, CONTROL_BYTES, REGISTRATION_BYTES], [32_768, 1_024, 2_048]);
        assert_eq!([SNAPSHOT_ITEM_BYTES, CHECKPOINT_BYTES], [49_152, 131_072]);
        assert_eq!([RULES_BYTES, SUBJECTS, SUBJECTS_PER_PRINCIPAL], [32_768, 65_536, 8_192]);
        assert_eq!([ARGS_INTEGER, RULE_LIMIT], [9_007_199_254_740_992; 2]);
        assert_eq!(RULE_SECONDS, 604_800);
    }
}
