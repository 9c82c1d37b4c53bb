//! Typed calls: what does not fit never runs, and what comes back is what the types say.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use moat_sandbox::{Bounds, Engine, Module, SandboxError, Status, Value};
use support::{call, plenty, text, wat};

fn typed() -> (Engine, Module) {
    let engine = Engine::new().unwrap();
    let module = wat(&engine, "typed");
    (engine, module)
}

fn int(value: i128) -> Value {
    Value::Int(value)
}

fn list(values: &[Value]) -> Value {
    Value::List(values.to_vec())
}

fn fields(values: &[(&str, Value)]) -> Value {
    Value::Fields(values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

/// Values that come back as they went in.
fn same() -> Vec<(&'static str, Value)> {
    let wide = |low: i128, high: i128| list(&[int(low), int(0), int(high)]);
    let point = |x, y| fields(&[("x", int(x)), ("y", int(y))]);
    vec![
        ("bool", list(&[Value::Bool(true), Value::Bool(false)])),
        ("u8", Value::Bytes(vec![0, 7, 255])),
        ("s8", wide(-128, 127)),
        ("u16", wide(0, 65_535)),
        ("s16", wide(-32_768, 32_767)),
        ("u32", wide(0, u32::MAX.into())),
        ("s32", wide(i32::MIN.into(), i32::MAX.into())),
        ("u64", wide(0, u64::MAX.into())),
        ("s64", wide(i64::MIN.into(), i64::MAX.into())),
        ("f32", list(&[Value::Float(0.5), Value::Float(-0.0), Value::Float(f64::INFINITY)])),
        (
            "f64",
            list(&[Value::Float(0.1), Value::Float(f64::MAX), Value::Float(f64::MIN_POSITIVE)]),
        ),
        ("char", list(&[text("a"), text("\u{1f980}"), text("\0")])),
        ("string", list(&[text(""), text("naïve \u{202e}\0 text"), text("\u{10ffff}")])),
        ("list", list(&[Value::Bytes(vec![]), Value::Bytes(vec![1, 2])])),
        ("tuple", list(&[Value::Tuple(vec![int(1), text("one")])])),
        ("option", list(&[Value::Nothing, int(3)])),
        (
            "option2",
            list(&[
                Value::Nothing,
                fields(&[("some", Value::Nothing)]),
                fields(&[("some", int(4))]),
            ]),
        ),
        ("result", list(&[fields(&[("ok", int(1))]), fields(&[("err", text("no"))])])),
        ("bare", list(&[fields(&[("ok", Value::Nothing)]), fields(&[("err", Value::Nothing)])])),
        ("record", list(&[point(1, -2), point(i32::MIN.into(), 0)])),
        (
            "variant",
            list(&[
                text("empty"),
                fields(&[("dot", point(3, 4))]),
                fields(&[("round", Value::Float(2.5))]),
            ]),
        ),
        ("enum", list(&[text("red"), text("blue")])),
        ("flags", list(&[list(&[]), list(&[text("read"), text("run")])])),
        ("u16", list(&[])),
        ("u8", Value::Bytes(vec![])),
    ]
}

#[test]
fn every_type_comes_back_as_it_went_in() {
    let (engine, module) = typed();
    for (kind, value) in same() {
        let outcome = call(
            &engine,
            &module,
            &plenty(),
            &format!("same-{kind}"),
            std::slice::from_ref(&value),
        )
        .unwrap();
        assert_eq!((outcome.status, outcome.result), (Status::Ok, Some(value)), "{kind}");
    }
}

/// What is not of the type, and what the refusal says.
fn unfit() -> Vec<(&'static str, Value, &'static str)> {
    let one = |value: Value| list(&[value]);
    let point = |more: &[(&str, Value)]| one(fields(more));
    vec![
        ("bool", one(int(1)), "a bool is needed"),
        ("bool", one(Value::Nothing), "a bool is needed"),
        ("u8", one(int(256)), "no u8"),
        ("u8", one(int(-1)), "no u8"),
        ("u8", one(Value::Bool(true)), "a u8 is needed"),
        ("u8", one(Value::Float(1.0)), "a u8 is needed"),
        ("u8", text("abc"), "a list is needed"),
        ("s8", one(int(128)), "no s8"),
        ("s8", Value::Bytes(vec![1]), "a list is needed"),
        ("u16", one(int(65_536)), "no u16"),
        ("s32", one(int(1 << 31)), "no s32"),
        ("u32", one(int(-1)), "no u32"),
        ("u64", one(int(1 << 64)), "no u64"),
        ("s64", one(int(1 << 63)), "no s64"),
        ("f32", one(Value::Float(1e300)), "no f32"),
        ("f32", one(int((1 << 24) + 1)), "no float holds"),
        ("f64", one(int((1 << 53) + 1)), "no float holds"),
        ("f64", one(text("1.0")), "a float is needed"),
        ("char", one(text("")), "not one character"),
        ("char", one(text("ab")), "not one character"),
        ("string", one(int(1)), "a text is needed"),
        ("string", one(Value::Bytes(vec![97])), "a text is needed"),
        ("tuple", one(list(&[int(1)])), "has 1 values and needs 2"),
        ("tuple", one(list(&[int(1), text("a"), int(2)])), "has 3 values"),
        ("option2", one(int(4)), "a case is needed"),
        ("option2", one(fields(&[("none", int(4))])), "one field `some`"),
        ("result", one(text("ok")), "lacks the value that `ok` carries"),
        ("result", one(fields(&[("fine", int(1))])), "no case `fine`"),
        ("result", one(fields(&[("ok", int(1)), ("err", text("x"))])), "one case"),
        ("bare", one(fields(&[("ok", int(1))])), "`ok` has none"),
        ("record", point(&[("x", int(1))]), "lacks `y`"),
        ("record", point(&[("x", int(1)), ("y", int(2)), ("z", int(3))]), "no name `z`"),
        ("record", point(&[("x", int(1)), ("x", int(2)), ("y", int(3))]), "twice"),
        ("record", point(&[("x", text("1")), ("y", int(2))]), "[0].x"),
        ("variant", one(text("dot")), "lacks the value"),
        ("variant", one(fields(&[("empty", int(1))])), "`empty` has none"),
        ("variant", one(text("square")), "no case `square`"),
        ("enum", one(text("purple")), "no case `purple`"),
        ("enum", one(int(0)), "a text is needed"),
        ("flags", one(list(&[text("fly")])), "no flag `fly`"),
        ("flags", one(list(&[text("read"), text("read")])), "twice"),
        ("flags", one(text("read")), "a list of names is needed"),
    ]
}

#[test]
fn what_does_not_fit_is_refused_before_anything_runs() {
    let (_, module) = typed();
    for (kind, value, why) in unfit() {
        let error = module.call(&format!("same-{kind}"), &list(&[value])).err();
        match error {
            Some(SandboxError::Input(text)) => assert!(text.contains(why), "{kind}: {text}"),
            other => panic!("{kind}: {why}: {other:?}"),
        }
    }
}

#[test]
fn arguments_are_in_order_or_by_name() {
    let (engine, module) = typed();
    let named = fields(&[("b", int(2)), ("a", int(40))]);
    for args in [list(&[int(40), int(2)]), Value::Tuple(vec![int(2), int(40)]), named] {
        let prepared = module.call("add", &args).unwrap();
        let outcome = engine.call(&prepared, &plenty(), &Default::default(), None).unwrap();
        assert_eq!(outcome.result, Some(int(42)));
    }
    for args in [
        list(&[]),
        list(&[int(1)]),
        list(&[int(1), int(2), int(3)]),
        fields(&[("a", int(1))]),
        fields(&[("a", int(1)), ("b", int(2)), ("c", int(3))]),
        Value::Nothing,
        int(1),
        text("ab"),
        Value::Bytes(vec![1, 2]),
    ] {
        assert!(matches!(module.call("add", &args), Err(SandboxError::Input(_))), "{args:?}");
    }
}

#[test]
fn a_function_of_an_interface_has_its_name_before_it() {
    let (engine, module) = typed();
    let sum = |name: &str| call(&engine, &module, &plenty(), name, &[int(1), int(2)]);
    assert_eq!(sum("moat:test/sums@1.2.0#add").unwrap().result, Some(int(3)));
    for name in [
        "moat:test/sums@1.2.0",
        "moat:test/sums@1.2.0#",
        "#add",
        "moat:test/other#add",
        "thing",
        "",
    ] {
        let error = sum(name).err().unwrap();
        assert!(matches!(error, SandboxError::Input(_)), "{name}: {error}");
    }
}

#[test]
fn a_function_that_is_not_there_is_named_beside_those_that_are() {
    let (engine, module) = typed();
    let said = module.call("shell\u{1b}[2J", &list(&[])).err().unwrap().to_string();
    assert!(said.contains("no function `shell") && said.contains("`add`"), "{said}");
    assert!(said.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{said:?}");
    let said = wat(&engine, "command").call("run", &list(&[])).err().unwrap().to_string();
    assert!(said.contains("`wasi:cli/run@0.2.0#run`"), "{said}");
    let core = wat(&engine, "empty").call("_start", &list(&[])).err().unwrap();
    assert!(matches!(core, SandboxError::Input(_)), "{core}");
}

#[test]
fn resources_are_neither_taken_nor_given() {
    let (_, module) = typed();
    for (name, args) in [("take", list(&[int(0)])), ("take-inside", list(&[int(0), int(0)]))] {
        let said = module.call(name, &args).err().unwrap().to_string();
        assert!(said.contains("cannot be written down"), "{name}: {said}");
    }
}

#[test]
fn a_call_has_the_bounds_of_a_run() {
    let (engine, module) = typed();
    let status = |bounds: &Bounds, name: &str, args: &[Value]| {
        let outcome = call(&engine, &module, bounds, name, args).unwrap();
        assert!(outcome.status == Status::Ok || outcome.result.is_none(), "{name}");
        outcome.status
    };
    let little = Bounds { fuel: 100_000, ..plenty() };
    assert_eq!(status(&little, "spin", &[]), Status::OutOfFuel);
    assert_eq!(status(&plenty(), "nothing", &[]), Status::Ok);
    assert!(matches!(status(&plenty(), "trap", &[]), Status::Trap(_)));
    // A result is output, whatever it takes to write it down.
    let bytes = |output| Bounds { output, ..plenty() };
    assert_eq!(status(&bytes(203), "many", &[int(100)]), Status::Ok);
    assert_eq!(status(&bytes(202), "many", &[int(100)]), Status::OutputFull);
    assert_eq!(status(&bytes(0), "nothing", &[]), Status::Ok);
    assert_eq!(status(&bytes(0), "add", &[int(1), int(2)]), Status::OutputFull);
    // What the host holds for it is bounded by the guest's memory, however small its elements are.
    let wide = Bounds { output: 1 << 40, memory: 16 << 20, ..plenty() };
    let flood = status(&wide, "many-bools", &[int(8 << 20)]);
    assert!(matches!(flood, Status::Trap(_)), "{flood:?}");
}

#[test]
fn a_result_has_one_text() {
    let value = fields(&[
        ("b", list(&[Value::Nothing, Value::Bool(true), int(u64::MAX.into())])),
        ("a", Value::Tuple(vec![Value::Float(1.0), Value::Float(1e300), Value::Float(f64::NAN)])),
        ("text", text("a \"b\"\n\u{e9}")),
        ("bytes", Value::Bytes(vec![0, 255])),
        ("far", list(&[Value::Float(f64::INFINITY), Value::Float(f64::NEG_INFINITY)])),
    ]);
    let expected = concat!(
        r#"{"b":[null,true,18446744073709551615],"a":[1.0,1e+300,"nan"],"#,
        r#""text":"a \"b\"\né","bytes":[0,255],"far":["inf","-inf"]}"#
    );
    assert_eq!(value.json(), expected);
}
