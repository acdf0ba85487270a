//! What people write on a command line, and what it means.
//!
//! ```text
//!   key, qualifier   text, in which \xNN is the byte NN, as every output shows it
//!   column           family:qualifier, or family for all its columns
//!   assignment       family:qualifier=value; the value is taken as it stands
//!   family           mail:versions=3,age=30d: kept are the newest 3 versions, if younger than 30 days
//!   locality group   cold:compression=zstd,block=64KiB,filter=columns,in-memory=no; what is not said stays
//!   place            mail=cold: the family lies in the files of that locality group
//!   partition        hash:2, or range with --split
//!   duration         200ms 10s 5m 12h 30d
//! ```

use std::time::Duration;

use bytes::Bytes;
use model::{
    Aggregate, Compaction, Compression, Filter, Granularity, LocalityChange, LocalityGroup, NodeId, Partition,
    Retention, TabletId, limits,
};

/// A family, or one column of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The family.
    pub family: String,
    /// The column; `None` is the whole family.
    pub qualifier: Option<Bytes>,
}

/// A column and the value it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The family.
    pub family: String,
    /// The column.
    pub qualifier: Bytes,
    /// The new value.
    pub value: Bytes,
}

/// A process of a local cluster that can be controlled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(pub NodeId);

/// From here on the numbers by which `up` knows its masters where a node is asked for; m1 is 0.
const MASTERS: u32 = 1 << 31;

impl Process {
    /// `m1`, `m2` …
    pub fn master(number: u32) -> Process {
        Process(NodeId(if number == 1 { 0 } else { MASTERS + number }))
    }

    /// Which master it is, if it is one.
    pub fn as_master(self) -> Option<u32> {
        match self.0.0 {
            0 => Some(1),
            number => number.checked_sub(MASTERS),
        }
    }
}

/// Reads `\xNN` as the byte NN and all else as it stands.
pub fn unescape(text: &str) -> Bytes {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 2..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = match digits {
            Some(digits) if bytes[at..].starts_with(b"\\x") && !digits.starts_with('+') => {
                u8::from_str_radix(digits, 16).ok()
            }
            _ => None,
        };
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 4 } else { 1 };
    }
    Bytes::from(out)
}

/// A row key within its limits.
pub fn row_key(text: &str) -> Result<Bytes, String> {
    let key = unescape(text);
    limits::check_row_key(&key)?;
    Ok(key)
}

/// Bytes of any length: a prefix, a bound, a split.
pub fn key_part(text: &str) -> Result<Bytes, String> {
    Ok(unescape(text))
}

/// A value as it stands.
pub fn value(text: &str) -> Result<Bytes, String> {
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

/// `family:qualifier`, or `family`.
pub fn column(text: &str) -> Result<Column, String> {
    let (family, qualifier) = match text.split_once(':') {
        Some((family, qualifier)) => (family, Some(check_qualifier(unescape(qualifier))?)),
        None => (text, None),
    };
    limits::check_family_name(family)
        .map_err(|why| format!("{why}; a column is family:qualifier, for example info:name"))?;
    Ok(Column { family: family.to_string(), qualifier })
}

/// `family:qualifier`, not a whole family.
pub fn one_column(text: &str) -> Result<Column, String> {
    let column = column(text)?;
    match column.qualifier {
        Some(_) => Ok(column),
        None => Err(format!("{text:?} names a family; give one column of it as {text}:qualifier")),
    }
}

/// `family:qualifier=value`.
pub fn assignment(text: &str) -> Result<Assignment, String> {
    let example = "write family:qualifier=value, for example info:name=Ada";
    let (target, value) = text.split_once('=').ok_or_else(|| format!("{text:?} has no value; {example}"))?;
    let Column { family, qualifier } = column(target)?;
    let qualifier = qualifier.ok_or_else(|| format!("{target:?} names no column; {example}"))?;
    if value.len() > limits::VALUE {
        return Err(format!("the value has {} bytes; the limit is {}", value.len(), limits::VALUE));
    }
    Ok(Assignment { family, qualifier, value: Bytes::copy_from_slice(value.as_bytes()) })
}

fn check_qualifier(qualifier: Bytes) -> Result<Bytes, String> {
    match qualifier.len() {
        len if len > limits::QUALIFIER => {
            Err(format!("the qualifier has {len} bytes; the limit is {}", limits::QUALIFIER))
        }
        _ => Ok(qualifier),
    }
}

/// A table's name.
pub fn table(text: &str) -> Result<String, String> {
    limits::check_table_name(text)?;
    Ok(text.to_string())
}

/// A checkpoint's name.
pub fn checkpoint(text: &str) -> Result<String, String> {
    store::checkpoint::check_name(text)?;
    Ok(text.to_string())
}

/// A family's name.
pub fn family(text: &str) -> Result<String, String> {
    limits::check_family_name(text)?;
    Ok(text.to_string())
}

/// `name`, or `name:versions=3`, `name:age=30d`, or both with a comma between them.
pub fn family_rule(text: &str) -> Result<(String, Retention), String> {
    let (name, rules) = text.split_once(':').unwrap_or((text, ""));
    limits::check_family_name(name)?;
    let mut kept = Vec::new();
    for rule in rules.split(',').filter(|rule| !rule.is_empty()) {
        kept.push(match rule.split_once('=') {
            Some(("versions", count)) => match count.parse() {
                Ok(count) if count > 0 => Retention::Versions(count),
                _ => return Err(format!("versions={count}: give a number of versions to keep, at least 1")),
            },
            Some(("age", age)) => match duration(age)? {
                Duration::ZERO => return Err(String::from("age=0 would keep nothing")),
                age => Retention::Age(age),
            },
            _ => return Err(format!("no rule {rule:?}; there are versions=N and age=DURATION (30d, 12h, 5m, 10s)")),
        });
    }
    let retention = match kept.len() {
        0 => Retention::Keep,
        1 => kept.remove(0),
        _ => Retention::Any(kept),
    };
    Ok((name.to_string(), retention))
}

/// `cold`, or `cold:compression=zstd,block=64KiB,filter=columns,in-memory`.
pub fn locality(text: &str) -> Result<LocalityChange, String> {
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let mut locality = LocalityChange { name: name.to_string(), ..LocalityChange::default() };
    for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
        match setting.split_once('=').unwrap_or((setting, "yes")) {
            ("compression", name) => locality.compression = Some(choice(name, "compression", &Compression::NAMES)?),
            ("filter", name) => locality.filter = Some(choice(name, "filter", &Filter::NAMES)?),
            ("in-memory", name) => {
                locality.in_memory = Some(choice(name, "in-memory", &[("yes", true), ("no", false)])?);
            }
            ("block", size) => locality.block_bytes = Some(bytes(size)?.try_into().unwrap_or(u32::MAX)),
            _ => {
                return Err(format!(
                    "no setting {setting:?}; there are compression=none|lz4|zstd, block=BYTES (16KiB), \
                     filter=none|rows|columns and in-memory=yes|no"
                ));
            }
        }
    }
    limits::check_locality(&locality)?;
    Ok(locality)
}

/// `tiered` or `leveled`.
pub fn compaction(text: &str) -> Result<Compaction, String> {
    choice(text, "compaction", &Compaction::NAMES)
}

/// `millis` or `micros`.
pub fn granularity(text: &str) -> Result<Granularity, String> {
    choice(text, "granularity", &Granularity::NAMES)
}

/// `7d`, or `off`.
pub fn changes(text: &str) -> Result<Duration, String> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text).map_err(|why| format!("{why}, or off")) }
}

/// `hits=sum`.
pub fn aggregate(text: &str) -> Result<(String, Aggregate), String> {
    let (family, how) = text.split_once('=').ok_or_else(|| format!("{text:?} is no FAMILY=sum|min|max"))?;
    limits::check_family_name(family)?;
    Ok((family.to_string(), choice(how, "aggregate", &Aggregate::NAMES)?))
}

/// `mail=cold`.
pub fn place(text: &str) -> Result<(String, String), String> {
    let (family, locality) = text.split_once('=').ok_or_else(|| format!("{text:?} is no FAMILY=GROUP"))?;
    limits::check_family_name(family)?;
    Ok((family.to_string(), self::locality(locality).map(|group| group.name)?))
}

fn choice<T: Copy>(name: &str, what: &str, known: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let found = known.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| format!("no {what} {name:?}; there are {}", names.join(", ")))
}

/// The name of one of a few.
pub fn show_choice<T: PartialEq>(value: &T, known: &[(&'static str, T)]) -> &'static str {
    known.iter().find(|(_, known)| known == value).map_or("unknown", |(name, _)| *name)
}

/// The settings as [`locality`] reads them, all of them.
pub fn show_locality(locality: &LocalityGroup) -> String {
    format!(
        "compression={},block={},filter={},in-memory={}",
        show_choice(&locality.compression, &Compression::NAMES),
        show_bytes(locality.block_bytes.into()),
        show_choice(&locality.filter, &Filter::NAMES),
        if locality.in_memory { "yes" } else { "no" },
    )
}

/// The rule as [`family_rule`] reads it; rules that only the API can make are shown with their words.
pub fn show_retention(retention: &Retention) -> String {
    let join = |rules: &[Retention], between| rules.iter().map(show_retention).collect::<Vec<_>>().join(between);
    match retention {
        Retention::Keep => String::from("keep all"),
        Retention::Versions(count) => format!("versions={count}"),
        Retention::Age(age) => format!("age={}", show_duration(*age)),
        Retention::Any(rules) => join(rules, ","),
        Retention::All(rules) => format!("({})", join(rules, " and ")),
    }
}

/// `hash:N` or `range`; the latter takes the splits.
pub fn partition(text: &str, splits: &[Bytes]) -> Result<Partition, String> {
    match text.split_once(':') {
        Some(("hash", _)) if !splits.is_empty() => Err(String::from("--split goes with --partition range only")),
        Some(("hash", count)) => match count.parse::<u32>() {
            Ok(tablets) if tablets > 0 && tablets as usize <= limits::TABLETS => Ok(Partition::Hash { tablets }),
            _ => Err(format!("hash:{count}: give a number of tablets from 1 to {}", limits::TABLETS)),
        },
        None if text == "range" => {
            let mut splits = splits.to_vec();
            splits.sort();
            if splits.first().is_some_and(Bytes::is_empty) || splits.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(String::from("each --split needs a key of its own, and not the empty one"));
            }
            if splits.len() >= limits::TABLETS {
                return Err(format!("{} splits; the limit is {} tablets", splits.len(), limits::TABLETS));
            }
            Ok(Partition::Range { splits })
        }
        _ => Err(format!("no partition {text:?}; there are hash:N (N tablets) and range (with --split KEY …)")),
    }
}

/// `200ms`, `10s`, `5m`, `12h`, `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let ms: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    match (count.parse::<u64>(), ms) {
        (Ok(count), Some(ms)) if count.checked_mul(ms).is_some() => Ok(Duration::from_millis(count * ms)),
        _ => Err(format!("{text:?} is no duration; write 200ms, 10s, 5m, 12h or 30d")),
    }
}

/// The shortest way to write it.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// `n3`, `3`, or a master as `m1`.
pub fn process(text: &str) -> Result<Process, String> {
    if let Some(Ok(number)) = text.strip_prefix('m').map(master) {
        return Ok(Process::master(number));
    }
    let node = NodeId::parse(text).map(Process).filter(|process| process.as_master().is_none());
    node.ok_or_else(|| format!("{text:?} names no node; write n1, n2 … or m1 for a master"))
}

/// `t3` or `3`.
pub fn tablet(text: &str) -> Result<TabletId, String> {
    TabletId::parse(text).ok_or_else(|| format!("{text:?} is no tablet id; write t1, t2 …"))
}

/// `n3` or `3`.
pub fn node(text: &str) -> Result<NodeId, String> {
    let node = NodeId::parse(text).filter(|&id| Process(id).as_master().is_none());
    node.ok_or_else(|| format!("{text:?} is no node id; write n1, n2 …"))
}

/// `m3` or `3`.
pub fn master(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix('m').unwrap_or(text).parse().ok();
    let number = number.filter(|&number| (1..MASTERS).contains(&number) && !text.contains('+'));
    number.ok_or_else(|| format!("{text:?} is no master's id; write 1, 2 … or m1, m2 …"))
}

/// `host:port`.
pub fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.into()),
        _ => Err(format!("{text:?} is no host:port, such as 10.0.0.1:8085")),
    }
}

/// `1=10.0.0.1:8085`.
pub fn initial(text: &str) -> Result<(u32, String), String> {
    let (id, at) = text.split_once('=').ok_or_else(|| format!("{text:?} is no ID=HOST:PORT"))?;
    Ok((master(id)?, address(at)?))
}

/// `65536`, `64KiB`, `512MiB` or `2GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit: Option<u64> = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = count.parse::<u64>().ok().zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
    bytes.ok_or_else(|| format!("{text:?} is no number of bytes; write 65536, 64KiB, 512MiB or 2GiB"))
}

/// The shortest way to write it.
pub fn show_bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_a_family_and_a_qualifier() {
        let of = |family: &str, qualifier: Option<&'static [u8]>| {
            Ok(Column { family: family.to_string(), qualifier: qualifier.map(Bytes::from_static) })
        };
        assert_eq!(column("name:first"), of("name", Some(b"first")));
        assert_eq!(column("name"), of("name", None));
        assert_eq!(column("name:"), of("name", Some(b"")));
        assert_eq!(column("a:b:c"), of("a", Some(b"b:c")));
        assert_eq!(column("a:\\x00\\xff\\x"), of("a", Some(b"\x00\xff\\x")));
        assert!(column(":x").is_err() && column("").is_err() && column("a b:x").is_err());
        assert!(one_column("name").is_err());
    }

    #[test]
    fn an_assignment_splits_at_its_first_equals_sign() {
        let found = assignment("info:note=a=b:c").unwrap();
        assert_eq!(
            (found.family.as_str(), &found.qualifier[..], &found.value[..]),
            ("info", &b"note"[..], &b"a=b:c"[..])
        );
        assert_eq!(&assignment("info:a\\x3db=\\x41").unwrap().qualifier[..], b"a=b");
        assert_eq!(&assignment("info:x=\\x41").unwrap().value[..], b"\\x41", "a value is taken as it stands");
        assert_eq!(&assignment("info:x=").unwrap().value[..], b"");
        for bad in ["info:note", "info=x", "=x", ":q=x", "note"] {
            assert!(assignment(bad).is_err(), "{bad}");
        }
    }

    /// What `printable` shows can be given back.
    #[test]
    fn escapes_come_back() {
        for key in [&b"LAX"[..], b"a\x00\\\xff", "Z\u{fc}rich".as_bytes(), b"\\x41", b"\\"] {
            assert_eq!(unescape(&model::text::printable(key)), key);
        }
        assert_eq!(unescape("\\x4\\xzz\\x+1"), Bytes::from_static(b"\\x4\\xzz\\x+1"));
        assert_eq!(unescape("\\xé"), Bytes::from("\\xé"), "an escape that ends within a letter is none");
    }

    #[test]
    fn a_family_has_its_rules() {
        let day = Duration::from_secs(86_400);
        assert_eq!(family_rule("name"), Ok(("name".into(), Retention::Keep)));
        assert_eq!(family_rule("mail:versions=3"), Ok(("mail".into(), Retention::Versions(3))));
        let both = Retention::Any(vec![Retention::Versions(3), Retention::Age(day * 30)]);
        assert_eq!(family_rule("mail:versions=3,age=30d"), Ok(("mail".into(), both.clone())));
        assert_eq!(show_retention(&both), "versions=3,age=30d");
        for bad in ["mail:versions=0", "mail:age=0s", "mail:age=30", "mail:size=3", "mail:versions", ":age=1d", "a b"] {
            assert!(family_rule(bad).is_err(), "{bad}");
        }
    }

    /// What is shown can be given back.
    #[test]
    fn a_locality_group_has_its_settings() {
        let all = locality("cold:compression=zstd,block=64KiB,filter=columns,in-memory").unwrap();
        let expected = LocalityChange {
            name: "cold".into(),
            in_memory: Some(true),
            compression: Some(Compression::Zstd),
            block_bytes: Some(64 << 10),
            filter: Some(Filter::Columns),
        };
        assert_eq!(all, expected);
        assert_eq!(locality("cold"), Ok(LocalityChange { name: "cold".into(), ..LocalityChange::default() }));
        assert_eq!(locality("cold:in-memory=no").unwrap().in_memory, Some(false));
        let shown = show_locality(&LocalityGroup::default());
        assert_eq!(shown, "compression=lz4,block=16KiB,filter=rows,in-memory=no");
        let back = locality(&format!("cold:{shown}")).unwrap();
        assert_eq!((back.block_bytes, back.filter), (Some(16 << 10), Some(Filter::Rows)));
        assert_eq!(
            (place("mail=cold"), compaction("leveled")),
            (Ok(("mail".into(), "cold".into())), Ok(Compaction::Leveled))
        );
        for bad in [
            "",
            "a b",
            "cold:compression=gzip",
            "cold:block=512",
            "cold:block=8MiB",
            "cold:block=99GiB",
            "cold:filter",
            "cold:in-memory=maybe",
            "cold:versions=3",
        ] {
            assert!(locality(bad).is_err(), "{bad}");
        }
        assert!(place("mail").is_err() && place("=cold").is_err() && place("mail=").is_err());
        assert!(compaction("lazy").is_err());
    }

    #[test]
    fn a_table_is_cut_by_hash_or_by_range() {
        let split =
            |keys: &[&'static str]| keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect::<Vec<_>>();
        assert_eq!(partition("hash:2", &[]), Ok(Partition::Hash { tablets: 2 }));
        assert_eq!(partition("range", &[]), Ok(Partition::Range { splits: vec![] }));
        assert_eq!(partition("range", &split(&["p", "g"])), Ok(Partition::Range { splits: split(&["g", "p"]) }));
        assert!(partition("range", &split(&["g", "g"])).is_err() && partition("range", &split(&[""])).is_err());
        assert!(partition("hash:2", &split(&["g"])).is_err());
        for bad in ["hash:0", "hash:1025", "hash:x", "hash", "ring", "range:3"] {
            assert!(partition(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, ms) in
            [("200ms", 200), ("10s", 10_000), ("5m", 300_000), ("12h", 43_200_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        for bad in ["", "5", "s", "-1s", "1.5s", "99999999999999999999d", "18446744073709551615d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_have_units() {
        for (text, count) in [("0", 0), ("7B", 7), ("64KiB", 65_536), ("512MiB", 512 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(bytes(text), Ok(count));
            assert_eq!(bytes(&show_bytes(count)), Ok(count));
        }
        for bad in ["", "KiB", "1KB", "-1", "1.5GiB", "99999999999999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processes_have_names() {
        assert_eq!(process("n3"), Ok(Process(NodeId(3))));
        assert_eq!(process("3"), Ok(Process(NodeId(3))));
        assert_eq!(process("m1").map(Process::as_master), Ok(Some(1)));
        assert_eq!(process("m3"), Ok(Process::master(3)));
        assert_eq!(process("m3").unwrap().to_string(), "m3");
        assert_eq!(process("n3").map(Process::as_master), Ok(None));
        assert_eq!(initial("m2=h:5"), Ok((2, String::from("h:5"))));
        assert!(["2", "=h:5", "0=h:5", "2=h", "2=:5", "2=h:0"].iter().all(|text| initial(text).is_err()));
        assert!(process("n0").is_err() && process("x").is_err() && node("0").is_err());
    }
}
