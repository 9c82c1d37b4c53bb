//! `spec/vectors/monitor.json`: the histories of the reference model, played straight and with a
//! snapshot taken and restored before every step.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use moat_core::key::AgentId;
use moat_core::monitor::{Event, Monitor, Rules, Subject, Verdict};
use moat_core::pattern::Resource;
use serde_json::{Value, json};

/// From this number on, an agent is registered.
const REGISTERED: u64 = 100;

fn agent(n: &Value) -> AgentId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&n.as_u64().unwrap().to_le_bytes());
    AgentId::from_bytes(bytes).unwrap()
}

fn subjects(holders: &Value) -> Vec<Subject> {
    let all = holders.as_array().unwrap().iter().enumerate();
    let lasts = |at, n: &Value| at == 0 || n.as_u64().unwrap() >= REGISTERED;
    all.map(|(at, n)| Subject { agent: agent(n), lasting: lasts(at, n) }).collect()
}

/// The answer and the alerts, as a step expects them.
fn decide(monitor: &mut Monitor, step: &Value, index: u64) -> (String, Vec<Value>) {
    let resource = Resource::parse(step["resource"].as_str().unwrap()).unwrap();
    let matched = monitor.matching(step["action"].as_str().unwrap(), &resource);
    let subjects = subjects(&step["holders"]);
    let event =
        Event { subjects: &subjects, matched: &matched, time: step["time"].as_u64().unwrap() };
    monitor.advance(event.time);
    let allowed = step["allowed"].as_bool().unwrap();
    let (answer, alerts) = monitor.check(&event, allowed);
    let code = answer.as_ref().err().map(|error| error.reason.code());
    let verdict = if allowed { Verdict::of(code) } else { Verdict::Denied };
    monitor.count(&event, verdict, index);
    let number = |id: AgentId| {
        let holders = step["holders"].as_array().unwrap();
        holders.iter().find(|n| agent(n) == id).unwrap().clone()
    };
    let alerts = alerts.into_iter().map(|alert| json!([alert.rule, number(alert.agent)]));
    (code.unwrap_or("ok").to_owned(), alerts.collect())
}

fn take(monitor: &mut Monitor, step: &Value, index: u64, name: &str) {
    match step["do"].as_str().unwrap() {
        "decide" => {
            let (code, alerts) = decide(monitor, step, index);
            assert_eq!(code, step["expect"], "{name}, step {index}: {step}");
            assert_eq!(Value::Array(alerts), step["alerts"], "{name}, step {index}: {step}");
        }
        "outcome" => {
            let (of, time) = (step["of"].as_u64().unwrap(), step["time"].as_u64().unwrap());
            monitor.spent(of, step["fuel"].as_u64(), time);
        }
        "forget" => monitor.forget(&agent(&step["agent"])),
        "reset" => monitor.reset(&agent(&step["agent"])),
        other => panic!("`{other}` is no step"),
    }
}

/// The same monitor, through the JSON of its rules and of its snapshot.
fn copy(monitor: &Monitor, time: u64) -> Monitor {
    let mut copy = Monitor::default();
    copy.set_rules(Rules::from_json(&monitor.rules().to_json().unwrap()).unwrap());
    copy.advance(time);
    for item in monitor.snapshot() {
        let text = serde_json::to_string(&item).unwrap();
        copy.restore(&serde_json::from_str(&text).unwrap()).unwrap();
    }
    assert_eq!(copy.snapshot(), monitor.snapshot());
    copy
}

#[test]
fn every_history_holds() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors/monitor.json");
    let histories: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(histories.len() > 30);
    let mut refusals = 0;
    for history in &histories {
        let name = history["name"].as_str().unwrap();
        let rules = Rules::from_json(history["rules"].to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let written: Value = serde_json::from_slice(&rules.to_json().unwrap()).unwrap();
        assert_eq!(written, history["rules"], "{name}");
        let mut straight = Monitor::default();
        straight.set_rules(rules);
        let (mut copied, mut time) = (straight.clone(), 0);
        for (index, step) in (0..).zip(history["steps"].as_array().unwrap()) {
            take(&mut straight, step, index, name);
            copied = copy(&copied, time);
            take(&mut copied, step, index, name);
            time = step["time"].as_u64().unwrap_or(time);
            refusals += u64::from(step["expect"] != "ok" && step["do"] == "decide");
        }
    }
    assert!(refusals > 100, "{refusals}");
}
