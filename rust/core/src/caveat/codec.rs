//! Grants, denials and limits as CBOR (spec/token.md).

use super::{Actions, Args, Denial, Grant, Limits};
use crate::error::{Error, Reason, Result};
use crate::limits;
use crate::pattern::Pattern;
use crate::wire::{Reader, Writer, once, required};

impl Grant {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.array(3).text(self.resource.as_str());
        self.actions.write(out);
        match self.args {
            Args::Any => out.text("any"),
            Args::Empty => out.map(0),
        };
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of(3, "a grant")?;
        let resource = Pattern::parse(reader.text("a grant's resource")?)?;
        let actions = Actions::read(reader)?;
        let args = Args::read(reader)?;
        Ok(Self { resource, actions, args })
    }
}

impl Denial {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.array(2).text(self.resource.as_str());
        self.actions.write(out);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of(2, "a denial")?;
        let resource = Pattern::parse(reader.text("a denial's resource")?)?;
        Ok(Self { resource, actions: Actions::read(reader)? })
    }
}

impl Actions {
    fn write(&self, out: &mut Writer) {
        out.array(self.0.len());
        for name in &self.0 {
            out.text(name);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let size = reader.array(limits::ACTIONS, "a list of actions")?;
        let mut names = Vec::with_capacity(size);
        for _ in 0..size {
            names.push(reader.text("an action")?.to_owned());
        }
        Self::new(names)
    }
}

impl Args {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        if reader.is_text() {
            return match reader.text("args")? {
                "any" => Ok(Self::Any),
                _ => Err(Error::malformed("args is neither \"any\" nor a map")),
            };
        }
        match reader.map(0, "args")? {
            0 => Ok(Self::Empty),
            _ => {
                let detail = "argument constraints are not known to this version";
                Err(Error::new(Reason::UnknownClaim, detail))
            }
        }
    }
}

impl Limits {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.map(7);
        for (key, number) in (1..).zip([self.fuel, self.memory, self.time_ms, self.output]) {
            out.int(key).uint(number);
        }
        for (key, set) in (5..).zip([&self.hosts, &self.read, &self.write]) {
            out.int(key).array(set.len());
            for pattern in set {
                out.text(pattern.as_str());
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let [mut fuel, mut memory, mut time_ms, mut output] = [None; 4];
        let [mut hosts, mut read, mut write] = [None, None, None];
        for _ in 0..reader.map(7, "limits")? {
            match reader.int("a limit's key")? {
                1 => once(&mut fuel, reader.uint("fuel")?, "fuel")?,
                2 => once(&mut memory, reader.uint("memory")?, "memory")?,
                3 => once(&mut time_ms, reader.uint("time")?, "time")?,
                4 => once(&mut output, reader.uint("output")?, "output")?,
                5 => once(&mut hosts, read_set(reader, "hosts")?, "hosts")?,
                6 => once(&mut read, read_set(reader, "read")?, "read")?,
                7 => once(&mut write, read_set(reader, "write")?, "write")?,
                other => {
                    let detail = format!("limit {other} is not known to this version");
                    return Err(Error::new(Reason::UnknownClaim, detail));
                }
            }
        }
        let limits = Self {
            fuel: required(fuel, "the limit fuel")?,
            memory: required(memory, "the limit memory")?,
            time_ms: required(time_ms, "the limit time")?,
            output: required(output, "the limit output")?,
            hosts: required(hosts, "the limit hosts")?,
            read: required(read, "the limit read")?,
            write: required(write, "the limit write")?,
        };
        limits.checked()
    }
}

fn read_set(reader: &mut Reader<'_>, what: &str) -> Result<Vec<Pattern>> {
    let size = reader.array(limits::SCOPES, what)?;
    (0..size).map(|_| Pattern::parse(reader.text(what)?)).collect()
}
