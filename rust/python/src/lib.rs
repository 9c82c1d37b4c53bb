//! `moat._native`: the heart and its engines as Python types. No rule lives here.
#![forbid(unsafe_code)]
#![expect(clippy::needless_pass_by_value, reason = "Python hands values over")]

mod attest;
mod audit;
mod caveat;
mod convert;
mod decision;
mod egress;
mod fault;
mod gate;
mod host;
mod identity;
mod ledger;
mod message;
mod outgoing;
mod permit;
mod sandbox;
mod statement;
mod token;
mod toolbox;
mod value;

#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;
    use pyo3::types::{PyDict, PyTuple};

    #[pymodule_export]
    use crate::attest::{Attestation, Requirement, skill_digest, tool_digest};
    #[pymodule_export]
    use crate::audit::{
        Checkpoint, ConsistencyProof, InclusionProof, Lines, Report, hand_on, read_log, verify_log,
    };
    #[pymodule_export]
    use crate::caveat::{AnyArgs, Denial, Grant, Limits, Pattern, canonicalize};
    #[pymodule_export]
    use crate::decision::Decision;
    #[pymodule_export]
    use crate::egress::{Egress, read_url};
    #[pymodule_export]
    use crate::gate::{Gate, check_rules};
    #[pymodule_export]
    use crate::host::{Host, Secret};
    #[pymodule_export]
    use crate::identity::{AgentId, Identity};
    #[pymodule_export]
    use crate::message::{Message, Policy, Sender};
    #[pymodule_export]
    use crate::permit::Permit;
    #[pymodule_export]
    use crate::sandbox::{CodeFolder, Module, SandboxOutcome, keep_apart, serve};
    #[pymodule_export]
    use crate::statement::{Control, Registration};
    #[pymodule_export]
    use crate::token::{Link, Token};
    #[pymodule_export]
    use crate::toolbox::{Reply, Toolbox};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        module.add("ANY", AnyArgs)?;
        let reasons = PyDict::new(py);
        for reason in moat_core::Reason::ALL {
            reasons.set_item(reason.code(), reason.stage().code())?;
        }
        let proxy = py.import("types")?.getattr("MappingProxyType")?.call1((reasons,))?;
        module.add("REASONS", proxy)?;
        let axes = moat_core::Axis::ALL.iter().map(|axis| axis.code());
        module.add("AXES", PyTuple::new(py, axes)?)?;
        Ok(())
    }
}
