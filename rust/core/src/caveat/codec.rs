//! Grants, denials and limits as CBOR (spec/token.md).

use super::{Actions, Args, Denial, Grant, HostRule, Limits, Methods, Range, SecretRule};
use crate::error::{Error, Reason, Result};
use crate::limits;
use crate::pattern::{Pattern, Resource};
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
        write_texts(out, self.iter());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let own = |text: &str| Ok(text.to_owned());
        Self::new(read_texts(reader, limits::ACTIONS, "a list of actions", own)?)
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

impl HostRule {
    fn write(&self, out: &mut Writer) {
        out.array(3).text(self.pattern().as_str());
        write_texts(out, self.methods().iter());
        write_texts(out, self.ranges().iter().map(Range::as_str));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of(3, "a host rule")?;
        let pattern = Pattern::parse(reader.text("a host rule's pattern")?)?;
        let own = |text: &str| Ok(text.to_owned());
        let methods = read_texts(reader, limits::METHODS, "methods", own)?;
        let ranges = read_texts(reader, limits::RANGES, "address ranges", Range::parse)?;
        Self::new(pattern, Methods::new(methods)?, ranges)
    }
}

impl SecretRule {
    fn write(&self, out: &mut Writer) {
        out.array(3).text(self.handle().as_str()).text(self.host().as_str()).text(self.header());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of(3, "a secret")?;
        let handle = Resource::parse(reader.text("a secret's handle")?)?;
        let host = Pattern::parse(reader.text("a secret's host")?)?;
        Self::new(handle, host, reader.text("a secret's header")?.to_owned())
    }
}

impl Limits {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.map(8);
        for (key, number) in (1..).zip([self.fuel, self.memory, self.time_ms, self.output]) {
            out.int(key).uint(number);
        }
        out.int(5).array(self.hosts.len());
        self.hosts.iter().for_each(|rule| rule.write(out));
        for (key, set) in (6..).zip([&self.read, &self.write]) {
            write_texts(out.int(key), set.iter().map(Pattern::as_str));
        }
        out.int(8).array(self.secrets.len());
        self.secrets.iter().for_each(|rule| rule.write(out));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let [mut fuel, mut memory, mut time_ms, mut output] = [None; 4];
        let (mut hosts, [mut read, mut write], mut secrets) = (None, [None, None], None);
        for _ in 0..reader.map(8, "limits")? {
            match reader.int("a limit's key")? {
                1 => once(&mut fuel, reader.uint("fuel")?, "fuel")?,
                2 => once(&mut memory, reader.uint("memory")?, "memory")?,
                3 => once(&mut time_ms, reader.uint("time")?, "time")?,
                4 => once(&mut output, reader.uint("output")?, "output")?,
                5 => {
                    let rules = read_list(reader, limits::SCOPES, "hosts", HostRule::read)?;
                    once(&mut hosts, rules, "hosts")?;
                }
                6 => once(&mut read, read_trees(reader, "read")?, "read")?,
                7 => once(&mut write, read_trees(reader, "write")?, "write")?,
                8 => {
                    let rules = read_list(reader, limits::SECRETS, "secrets", SecretRule::read)?;
                    once(&mut secrets, rules, "secrets")?;
                }
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
            secrets: required(secrets, "the limit secrets")?,
        };
        limits.checked()
    }
}

fn read_trees(reader: &mut Reader<'_>, what: &str) -> Result<Vec<Pattern>> {
    read_texts(reader, limits::SCOPES, what, Pattern::parse)
}

fn read_texts<T>(
    reader: &mut Reader<'_>,
    most: usize,
    what: &str,
    parse: impl Fn(&str) -> Result<T>,
) -> Result<Vec<T>> {
    read_list(reader, most, what, |reader| parse(reader.text(what)?))
}

fn read_list<'a, T>(
    reader: &mut Reader<'a>,
    most: usize,
    what: &str,
    read: impl Fn(&mut Reader<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let size = reader.array(most, what)?;
    (0..size).map(|_| read(reader)).collect()
}

fn write_texts<'a>(out: &mut Writer, texts: impl ExactSizeIterator<Item = &'a str>) {
    out.array(texts.len());
    for text in texts {
        out.text(text);
    }
}
