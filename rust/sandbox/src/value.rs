//! Values of typed calls: plain data, checked against a component's own types on the way in.

use wasmtime::component::{Type, Val};

/// A value as a caller writes it, or as a component gives it back.
///
/// | WIT | in | out |
/// | --- | --- | --- |
/// | `bool`, integers | the same, in range | the same |
/// | `f32`, `f64` | a float, or an integer that one holds exactly | a float |
/// | `char`, `string`, `enum` | a text | a text |
/// | `list<u8>` | bytes, or a list | bytes |
/// | `list`, `tuple` | a list or tuple | a list, a tuple |
/// | `record` | all its fields by name, no others | fields |
/// | `variant` | the case's name, or one field of that name | the same |
/// | `option` | nothing, or the value (in a field `some` if it is an option) | the same |
/// | `result` | one field, `ok` or `err` | the same |
/// | `flags` | a list of names, each once | a list |
///
/// Resources, streams and futures are refused before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: an `option` without a value, a function without a result.
    Nothing,
    /// `true` or `false`.
    Bool(bool),
    /// An integer of any width.
    Int(i128),
    /// A floating-point number; the type says which.
    Float(f64),
    /// Text, or the name of a case.
    Text(String),
    /// A `list<u8>`.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// Values in order, of a fixed number.
    Tuple(Vec<Value>),
    /// Values by name, in the type's order when they come back.
    Fields(Vec<(String, Value)>),
}

/// Why a value does not fit, and where in it.
#[derive(Debug)]
pub(crate) struct Misfit {
    at: String,
    why: String,
}

impl Misfit {
    fn new(why: impl Into<String>) -> Self {
        Self { at: String::new(), why: why.into() }
    }

    fn within(mut self, part: &str) -> Self {
        self.at.insert_str(0, part);
        self
    }

    /// One line, below this name.
    pub(crate) fn text(&self, name: &str) -> String {
        format!("`{name}{}` {}", self.at, self.why)
    }
}

/// Whether values of this type can be written down at all, however deep.
pub(crate) fn plain(ty: &Type) -> bool {
    let case = |ty: Option<Type>| ty.is_none_or(|ty| plain(&ty));
    match ty {
        Type::List(list) => plain(&list.ty()),
        Type::Record(record) => record.fields().all(|field| plain(&field.ty)),
        Type::Tuple(tuple) => tuple.types().all(|ty| plain(&ty)),
        Type::Variant(variant) => variant.cases().all(|one| case(one.ty)),
        Type::Option(option) => plain(&option.ty()),
        Type::Result(result) => case(result.ok()) && case(result.err()),
        Type::Bool | Type::Char | Type::String | Type::Enum(_) | Type::Flags(_) => true,
        Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 => true,
        Type::S64 | Type::U64 | Type::Float32 | Type::Float64 => true,
        Type::Map(_) | Type::Own(_) | Type::Borrow(_) | Type::Future(_) | Type::Stream(_) => false,
        Type::ErrorContext | Type::FixedLengthList(_) => false,
    }
}

/// The value as this type has it.
pub(crate) fn lower(value: &Value, ty: &Type) -> Result<Val, Misfit> {
    Ok(match ty {
        Type::Bool => match value {
            Value::Bool(bool) => Val::Bool(*bool),
            _ => return Err(wants("a bool", value)),
        },
        Type::S8 => Val::S8(int(value, "s8")?),
        Type::U8 => Val::U8(int(value, "u8")?),
        Type::S16 => Val::S16(int(value, "s16")?),
        Type::U16 => Val::U16(int(value, "u16")?),
        Type::S32 => Val::S32(int(value, "s32")?),
        Type::U32 => Val::U32(int(value, "u32")?),
        Type::S64 => Val::S64(int(value, "s64")?),
        Type::U64 => Val::U64(int(value, "u64")?),
        Type::Float32 => Val::Float32(narrow(float(value, 1 << 24)?)?),
        Type::Float64 => Val::Float64(float(value, 1 << 53)?),
        Type::Char => Val::Char(char(value)?),
        Type::String => Val::String(text(value)?.to_owned()),
        Type::List(list) => Val::List(items(value, &list.ty())?),
        Type::Tuple(tuple) => Val::Tuple(tupled(value, tuple.types())?),
        Type::Record(record) => {
            let fields: Vec<_> = record.fields().map(|field| (field.name, field.ty)).collect();
            let named = by_name(value, &fields)?;
            Val::Record(fields.iter().map(|(name, _)| (*name).to_owned()).zip(named).collect())
        }
        Type::Variant(variant) => {
            let (name, payload) = one_case(value)?;
            let case = variant.cases().find(|case| case.name == name);
            let case =
                case.ok_or_else(|| unknown("case", name, variant.cases().map(|c| c.name)))?;
            Val::Variant(name.to_owned(), carried(payload, case.ty, name)?)
        }
        Type::Enum(all) => {
            let name = text(value)?;
            if !all.names().any(|known| known == name) {
                return Err(unknown("case", name, all.names()));
            }
            Val::Enum(name.to_owned())
        }
        Type::Option(option) => Val::Option(optional(value, &option.ty())?),
        Type::Result(result) => match one_case(value)? {
            ("ok", payload) => Val::Result(Ok(carried(payload, result.ok(), "ok")?)),
            ("err", payload) => Val::Result(Err(carried(payload, result.err(), "err")?)),
            (name, _) => return Err(unknown("case", name, ["ok", "err"].into_iter())),
        },
        Type::Flags(all) => {
            let known: Vec<_> = all.names().collect();
            Val::Flags(flags(value, &known)?)
        }
        _ => return Err(Misfit::new("is of a type that cannot be passed")),
    })
}

/// Values for these names: all of them, and no others.
pub(crate) fn by_name(value: &Value, types: &[(&str, Type)]) -> Result<Vec<Val>, Misfit> {
    let Value::Fields(fields) = value else { return Err(wants("named values", value)) };
    let known = || types.iter().map(|(name, _)| *name);
    for (at, (name, _)) in fields.iter().enumerate() {
        if !known().any(|one| one == name) {
            return Err(unknown("name", name, known()));
        }
        if fields.iter().take(at).any(|(before, _)| before == name) {
            return Err(Misfit::new(format!("names `{}` twice", name.escape_debug())));
        }
    }
    let one = |(name, ty): &(&str, Type)| {
        let given = fields.iter().find(|(given, _)| given == name);
        let (_, value) = given.ok_or_else(|| Misfit::new(format!("lacks `{name}`")))?;
        lower(value, ty).map_err(|misfit| misfit.within(&format!(".{name}")))
    };
    types.iter().map(one).collect()
}

/// Values in order: as many as there are types.
pub(crate) fn tupled(
    value: &Value,
    types: impl ExactSizeIterator<Item = Type>,
) -> Result<Vec<Val>, Misfit> {
    let (Value::List(items) | Value::Tuple(items)) = value else {
        return Err(wants("a list", value));
    };
    if items.len() != types.len() {
        let text = format!("has {} values and needs {}", items.len(), types.len());
        return Err(Misfit::new(text));
    }
    let one = |(at, (item, ty))| {
        lower(item, &ty).map_err(|misfit: Misfit| misfit.within(&format!("[{at}]")))
    };
    items.iter().zip(types).enumerate().map(one).collect()
}

fn items(value: &Value, ty: &Type) -> Result<Vec<Val>, Misfit> {
    match value {
        Value::Bytes(bytes) if *ty == Type::U8 => Ok(bytes.iter().map(|b| Val::U8(*b)).collect()),
        Value::List(items) | Value::Tuple(items) => {
            let one = |(at, item)| {
                lower(item, ty).map_err(|misfit: Misfit| misfit.within(&format!("[{at}]")))
            };
            items.iter().enumerate().map(one).collect()
        }
        _ => Err(wants("a list", value)),
    }
}

fn optional(value: &Value, ty: &Type) -> Result<Option<Box<Val>>, Misfit> {
    if *value == Value::Nothing {
        return Ok(None);
    }
    if !matches!(ty, Type::Option(_)) {
        return Ok(Some(Box::new(lower(value, ty)?)));
    }
    match one_case(value)? {
        ("some", Some(inner)) => {
            let inner = lower(inner, ty).map_err(|misfit| misfit.within(".some"))?;
            Ok(Some(Box::new(inner)))
        }
        _ => Err(wants("nothing or one field `some`", value)),
    }
}

/// A name on its own, or the only field.
fn one_case(value: &Value) -> Result<(&str, Option<&Value>), Misfit> {
    match value {
        Value::Text(name) => Ok((name, None)),
        Value::Fields(fields) => match fields.as_slice() {
            [(name, payload)] => Ok((name, Some(payload))),
            _ => Err(Misfit::new("names more or less than one case")),
        },
        _ => Err(wants("a case", value)),
    }
}

/// What a case carries: something exactly when its type says so.
fn carried(
    payload: Option<&Value>,
    ty: Option<Type>,
    name: &str,
) -> Result<Option<Box<Val>>, Misfit> {
    match (payload, ty) {
        (None | Some(Value::Nothing), None) => Ok(None),
        (Some(value), Some(ty)) => {
            let value = lower(value, &ty).map_err(|misfit| misfit.within(&format!(".{name}")))?;
            Ok(Some(Box::new(value)))
        }
        (Some(_), None) => Err(Misfit::new(format!("carries a value, and `{name}` has none"))),
        (None, Some(_)) => Err(Misfit::new(format!("lacks the value that `{name}` carries"))),
    }
}

fn flags(value: &Value, known: &[&str]) -> Result<Vec<String>, Misfit> {
    let (Value::List(items) | Value::Tuple(items)) = value else {
        return Err(wants("a list of names", value));
    };
    let mut names = Vec::<String>::new();
    for item in items {
        let name = text(item)?;
        if !known.contains(&name) {
            return Err(unknown("flag", name, known.iter().copied()));
        }
        if names.iter().any(|before| before == name) {
            return Err(Misfit::new(format!("names `{name}` twice")));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn int<T: TryFrom<i128>>(value: &Value, kind: &str) -> Result<T, Misfit> {
    let Value::Int(number) = value else { return Err(wants(&format!("a {kind}"), value)) };
    T::try_from(*number).map_err(|_| Misfit::new(format!("is {number}, which is no {kind}")))
}

/// A float, or an integer of at most this size, up to which every one is a float.
fn float(value: &Value, exact: u64) -> Result<f64, Misfit> {
    match value {
        Value::Float(float) => Ok(*float),
        #[allow(clippy::cast_precision_loss, reason = "the bound is where precision ends")]
        Value::Int(number) if number.unsigned_abs() <= u128::from(exact) => Ok(*number as f64),
        Value::Int(number) => {
            Err(Misfit::new(format!("is {number}, which no float holds exactly")))
        }
        _ => Err(wants("a float", value)),
    }
}

/// Rounded to the nearest; a finite number stays one.
fn narrow(wide: f64) -> Result<f32, Misfit> {
    #[allow(clippy::cast_possible_truncation, reason = "what is lost is checked")]
    let narrow = wide as f32;
    if narrow.is_infinite() && wide.is_finite() {
        return Err(Misfit::new(format!("is {wide}, which is no f32")));
    }
    Ok(narrow)
}

fn char(value: &Value) -> Result<char, Misfit> {
    let mut all = text(value)?.chars();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Misfit::new("is not one character")),
    }
}

fn text(value: &Value) -> Result<&str, Misfit> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err(wants("a text", value)),
    }
}

fn wants(what: &str, value: &Value) -> Misfit {
    let found = match value {
        Value::Nothing => "nothing",
        Value::Bool(_) => "a bool",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Text(_) => "a text",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
        Value::Tuple(_) => "a tuple",
        Value::Fields(_) => "named values",
    };
    Misfit::new(format!("is {found}, and {what} is needed"))
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Misfit {
    let known: Vec<_> = known.take(16).map(|one| format!("`{one}`")).collect();
    let name: String = name.escape_debug().take(64).collect();
    Misfit::new(format!("has no {what} `{name}`; there are {}", known.join(", ")))
}

/// The value that came back.
///
/// INVARIANT: the engine made `val` by this very type, and [`plain`] held of it; anything else is
/// nothing.
pub(crate) fn lift(val: Val, ty: &Type) -> Value {
    let boxed = |val: Option<Box<Val>>, ty: Option<Type>| match (val, ty) {
        (Some(val), Some(ty)) => lift(*val, &ty),
        _ => Value::Nothing,
    };
    match (val, ty) {
        (Val::Bool(bool), _) => Value::Bool(bool),
        (Val::S8(int), _) => Value::Int(int.into()),
        (Val::U8(int), _) => Value::Int(int.into()),
        (Val::S16(int), _) => Value::Int(int.into()),
        (Val::U16(int), _) => Value::Int(int.into()),
        (Val::S32(int), _) => Value::Int(int.into()),
        (Val::U32(int), _) => Value::Int(int.into()),
        (Val::S64(int), _) => Value::Int(int.into()),
        (Val::U64(int), _) => Value::Int(int.into()),
        (Val::Float32(float), _) => Value::Float(float.into()),
        (Val::Float64(float), _) => Value::Float(float),
        (Val::Char(char), _) => Value::Text(char.into()),
        (Val::String(text) | Val::Enum(text), _) => Value::Text(text),
        (Val::List(items), Type::List(list)) => list_of(items, &list.ty()),
        (Val::Tuple(items), Type::Tuple(tuple)) => {
            let items = items.into_iter().zip(tuple.types());
            Value::Tuple(items.map(|(item, ty)| lift(item, &ty)).collect())
        }
        (Val::Record(fields), Type::Record(record)) => {
            let fields = fields.into_iter().zip(record.fields());
            Value::Fields(fields.map(|((name, val), field)| (name, lift(val, &field.ty))).collect())
        }
        (Val::Variant(name, None), _) => Value::Text(name),
        (Val::Variant(name, payload), Type::Variant(variant)) => {
            let ty = variant.cases().find(|case| case.name == name).and_then(|case| case.ty);
            Value::Fields(vec![(name, boxed(payload, ty))])
        }
        (Val::Option(Some(val)), Type::Option(option)) => match option.ty() {
            inner @ Type::Option(_) => Value::Fields(vec![("some".to_owned(), lift(*val, &inner))]),
            inner => lift(*val, &inner),
        },
        (Val::Result(result), Type::Result(ty)) => {
            let (name, payload) = match result {
                Ok(val) => ("ok", boxed(val, ty.ok())),
                Err(val) => ("err", boxed(val, ty.err())),
            };
            Value::Fields(vec![(name.to_owned(), payload)])
        }
        (Val::Flags(names), _) => Value::List(names.into_iter().map(Value::Text).collect()),
        _ => Value::Nothing,
    }
}

fn list_of(items: Vec<Val>, ty: &Type) -> Value {
    if *ty == Type::U8 {
        let byte = |item| if let Val::U8(byte) = item { Some(byte) } else { None };
        return Value::Bytes(items.into_iter().filter_map(byte).collect());
    }
    Value::List(items.into_iter().map(|item| lift(item, ty)).collect())
}

impl Value {
    /// One text for each value: JSON without spaces, fields in order, integers in full, bytes as
    /// numbers, and the floats that JSON lacks as the texts `nan`, `inf` and `-inf`.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Nothing => out.push_str("null"),
            Self::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
            Self::Int(int) => out.push_str(&int.to_string()),
            Self::Float(float) if float.is_nan() => out.push_str("\"nan\""),
            Self::Float(float) if float.is_infinite() => {
                out.push_str(if *float > 0.0 { "\"inf\"" } else { "\"-inf\"" });
            }
            Self::Float(float) => out.push_str(&serde_json::Value::from(*float).to_string()),
            Self::Text(text) => quote(text, out),
            Self::Bytes(bytes) => {
                list(out, ('[', ']'), bytes, |byte, out| out.push_str(&byte.to_string()));
            }
            Self::List(items) | Self::Tuple(items) => list(out, ('[', ']'), items, Self::write),
            Self::Fields(fields) => list(out, ('{', '}'), fields, |(name, value), out| {
                quote(name, out);
                out.push(':');
                value.write(out);
            }),
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn list<T>(
    out: &mut String,
    (open, close): (char, char),
    items: &[T],
    mut one: impl FnMut(&T, &mut String),
) {
    out.push(open);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        one(item, out);
    }
    out.push(close);
}
