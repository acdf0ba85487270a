//! Who may do what: rights on families of tables (Bigtable, 2: access control is on the level of families).
//!
//! ```text
//!   grant   = right "on" table [":" family]     read on orders:public    write on shop.*    admin on *    admin on cluster
//! ```
//!
//! Names may end with `*`, which stands for any end. Whoever may write need not be allowed to read. Who has the right to
//! administer a table may do everything with it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

use crate::settings::CHANGES;
use crate::{AdminRequest, Change, DocumentChange, Refusal, Schema};

/// What the cluster is called in a grant.
const CLUSTER: &str = "cluster";

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Right {
    /// See cells.
    Read,
    /// Change cells, without seeing them.
    Write,
    /// All that is done to a table, or to the cluster.
    Admin,
}

impl Right {
    /// All, by the names that people give them.
    pub const NAMES: [(&str, Right); 3] = [("read", Right::Read), ("write", Right::Write), ("admin", Right::Admin)];

    fn name(self) -> &'static str {
        Right::NAMES.iter().find(|(_, right)| *right == self).map_or("", |(name, _)| name)
    }
}

/// To what a right extends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Nodes, masters, tablets, checkpoints, documents and events; and who may do what.
    Cluster,
    /// Families of tables.
    Families {
        /// The tables' names.
        table: Pattern,
        /// The families'; a whole table's too.
        family: Pattern,
    },
}

/// Names: one, or all that begin in one way if it ends with `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pattern(String);

impl Pattern {
    /// Is the name one of these?
    pub fn fits(&self, name: &str) -> bool {
        self.0.strip_suffix('*').map_or(self.0 == name, |prefix| name.starts_with(prefix))
    }

    fn is_all(&self) -> bool {
        self.0 == "*"
    }
}

/// One right on something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// What,
    pub right: Right,
    /// and on what.
    pub scope: Scope,
}

/// All that somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// In no order.
    pub grants: Vec<Grant>,
}

impl Rights {
    /// May do that with a family?
    pub fn may(&self, right: Right, table: &str, family: &str) -> bool {
        self.grants.iter().any(|grant| match &grant.scope {
            Scope::Families { table: tables, family: families } => {
                (grant.right == right || grant.right == Right::Admin) && tables.fits(table) && families.fits(family)
            }
            Scope::Cluster => false,
        })
    }

    /// May do that with all families of the table that there are and will be? The right to administer is on whole tables.
    pub fn may_all(&self, right: Right, table: &str) -> bool {
        self.grants.iter().any(|grant| match &grant.scope {
            Scope::Families { table: tables, family } => {
                (grant.right == right || grant.right == Right::Admin) && tables.fits(table) && family.is_all()
            }
            Scope::Cluster => false,
        })
    }

    /// Has it anything to do with the table?
    pub fn concerns(&self, table: &str) -> bool {
        self.grants
            .iter()
            .any(|grant| matches!(&grant.scope, Scope::Families { table: tables, .. } if tables.fits(table)))
    }

    /// May look at the cluster, or change it?
    pub fn may_cluster(&self, right: Right) -> bool {
        let of_cluster = |grant: &&Grant| grant.scope == Scope::Cluster;
        self.grants.iter().filter(of_cluster).any(|grant| grant.right == right || grant.right == Right::Admin)
    }

    /// May everything?
    pub fn is_all(&self) -> bool {
        self.may_cluster(Right::Admin)
            && self.grants.iter().any(|grant| {
                let all = |(table, family): (&Pattern, &Pattern)| table.is_all() && family.is_all();
                let scope = match &grant.scope {
                    Scope::Families { table, family } => Some((table, family)),
                    Scope::Cluster => None,
                };
                grant.right == Right::Admin && scope.is_some_and(all)
            })
    }

    /// Names of the families of the table of which that may be done; `None` if it is all of them.
    pub fn families<'a>(&self, right: Right, schema: &'a Schema) -> Option<Vec<&'a str>> {
        if self.may_all(right, &schema.name) {
            return None;
        }
        let names = schema.families.iter().map(|family| family.name.as_str());
        Some(names.filter(|family| self.may(right, &schema.name, family)).collect())
    }

    /// Refuses, unless that may be done with the family. A table's changes show all of it.
    pub fn check(&self, right: Right, table: &str, family: &str) -> Result<(), Refusal> {
        let may = if family == CHANGES { self.may_all(right, table) } else { self.may(right, table, family) };
        if may { Ok(()) } else { Err(forbidden(right, &format!("{table}:{family}"))) }
    }

    /// Refuses, unless that may be done with all families of the table.
    pub fn check_all(&self, right: Right, table: &str) -> Result<(), Refusal> {
        if self.may_all(right, table) { Ok(()) } else { Err(forbidden(right, table)) }
    }

    /// Refuses, unless all these changes of a row may be made. A whole row is deleted by whoever may write all families.
    pub fn check_changes(&self, table: &str, changes: &[Change<String>]) -> Result<(), Refusal> {
        changes.iter().try_for_each(|change| match change.family() {
            Some(family) => self.check(Right::Write, table, family),
            None => self.check_all(Right::Write, table),
        })
    }

    /// Refuses, unless that may be asked of a master.
    pub fn check_admin(&self, request: &AdminRequest) -> Result<(), Refusal> {
        let cluster = |right| if self.may_cluster(right) { Ok(()) } else { Err(forbidden(right, CLUSTER)) };
        match request {
            // What may not be seen is left out of the answers.
            AdminRequest::Map | AdminRequest::Hidden => Ok(()),
            AdminRequest::Status | AdminRequest::Events(_) | AdminRequest::Masters | AdminRequest::Losses(_) => {
                cluster(Right::Read)
            }
            AdminRequest::CreateTable(new) => self.check_all(Right::Admin, &new.name),
            AdminRequest::DropTable(table)
            | AdminRequest::RestoreTable(table)
            | AdminRequest::HideTable { table, .. }
            | AdminRequest::AlterTable { table, .. } => self.check_all(Right::Admin, table),
            AdminRequest::Documents(prefix) if !is_secret(prefix) => Ok(()),
            AdminRequest::ChangeDocument(DocumentChange { name, .. }) => match table_of(name) {
                Some(table) => self.check_all(Right::Admin, table),
                None => cluster(Right::Admin),
            },
            AdminRequest::Documents(_)
            | AdminRequest::DrainNode { .. }
            | AdminRequest::RemoveNode(_)
            | AdminRequest::MoveTablet { .. }
            | AdminRequest::Transfer { .. }
            | AdminRequest::Recover { .. }
            | AdminRequest::AddMaster { .. }
            | AdminRequest::RemoveMaster(_)
            | AdminRequest::SplitTablet { .. }
            | AdminRequest::CheckTablet(_)
            | AdminRequest::ScrubNode(_)
            | AdminRequest::MergeTablet(_) => cluster(Right::Admin),
        }
    }
}

/// Where documents of access control are.
pub const DOCUMENTS: &str = "access/";

/// Can documents whose names begin so be those of access control?
fn is_secret(prefix: &str) -> bool {
    prefix.starts_with(DOCUMENTS) || DOCUMENTS.starts_with(prefix)
}

/// What the names of documents begin with that belong to a table, whose name comes next.
const OF_TABLES: &str = "bigtable/views/";

/// The table of which a document of this name is.
fn table_of(document: &str) -> Option<&str> {
    document.strip_prefix(OF_TABLES)?.split_once('/').map(|(table, _)| table)
}

/// The refusal that says it.
pub fn forbidden(right: Right, what: &str) -> Refusal {
    Refusal::Forbidden(format!("{} on {what}", right.name()))
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.right, self.scope)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Cluster => write!(f, "{CLUSTER}"),
            Scope::Families { table, family } if family.is_all() => write!(f, "{}", table.0),
            Scope::Families { table, family } => write!(f, "{}:{}", table.0, family.0),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> Result<Right, String> {
        let found = Right::NAMES.iter().find(|(name, _)| *name == text).map(|(_, right)| *right);
        found.ok_or_else(|| format!("{text:?} is no right: use read, write or admin"))
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Scope, String> {
        if text == CLUSTER {
            return Ok(Scope::Cluster);
        }
        let (table, family) = text.split_once(':').unwrap_or((text, "*"));
        Ok(Scope::Families { table: pattern(table)?, family: pattern(family)? })
    }
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let name = text.strip_suffix('*').unwrap_or(text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match text.is_empty() || text.len() > crate::limits::TABLE_NAME || !name.chars().all(allowed) {
        true => Err(format!(
            "{text:?} names nothing: write TABLE, TABLE:FAMILY or cluster, where a name may end with * for any end"
        )),
        false => Ok(Pattern(text.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn rights(grants: &[(&str, &str)]) -> Rights {
        let grant =
            |(right, scope): &(&str, &str)| Grant { right: right.parse().unwrap(), scope: scope.parse().unwrap() };
        Rights { grants: grants.iter().map(grant).collect() }
    }

    #[test]
    fn a_right_extends_to_what_it_names_and_no_further() {
        let rights = rights(&[("read", "shop.*:public"), ("write", "log"), ("admin", "own*")]);
        for (right, table, family, may) in [
            (Right::Read, "shop.orders", "public", true),
            (Right::Read, "shop.orders", "secret", false),
            (Right::Read, "shop", "public", false),
            (Right::Write, "shop.orders", "public", false),
            (Right::Write, "log", "any", true),
            (Right::Read, "log", "any", false),
            (Right::Read, "own2", "any", true),
            (Right::Write, "own", "any", true),
        ] {
            assert_eq!(rights.may(right, table, family), may, "{right:?} {table}:{family}");
        }
        assert!(rights.may_all(Right::Write, "log") && !rights.may_all(Right::Read, "shop.orders"));
        assert!(rights.concerns("shop.x") && !rights.concerns("other") && !rights.is_all());
        assert_eq!(rights.check(Right::Read, "log", "f"), Err(Refusal::Forbidden("read on log:f".into())));
        assert!(rights.check(Right::Read, "shop.orders", CHANGES).is_err(), "changes show every family");
        assert!(rights.check(Right::Read, "own", CHANGES).is_ok());
    }

    #[test]
    fn the_cluster_is_a_thing_of_its_own() {
        let tables = rights(&[("admin", "*")]);
        assert!(tables.check_admin(&AdminRequest::DropTable("t".into())).is_ok());
        assert!(tables.check_admin(&AdminRequest::Status).is_err() && !tables.is_all());
        let looks = rights(&[("read", "cluster")]);
        assert!(looks.check_admin(&AdminRequest::Status).is_ok());
        assert!(looks.check_admin(&AdminRequest::RemoveMaster(1)).is_err());
        assert!(looks.check_admin(&AdminRequest::DropTable("t".into())).is_err());
        for secret in ["", "a", "access/", "access/principals/x"] {
            assert!(looks.check_admin(&AdminRequest::Documents(secret.into())).is_err(), "{secret:?}");
        }
        assert!(looks.check_admin(&AdminRequest::Documents("bigtable/".into())).is_ok());
        let change =
            |name: &str| AdminRequest::ChangeDocument(DocumentChange { name: name.into(), body: None, expect: None });
        let own = rights(&[("admin", "own")]);
        for (name, may) in
            [("bigtable/views/own/3/v", true), ("bigtable/views/other/3/v", false), ("bigtable/profiles/own/x", false)]
        {
            assert_eq!(own.check_admin(&change(name)).is_ok(), may, "{name}");
        }
        assert!(tables.check_admin(&change("access/principals/me")).is_err());
        assert!(rights(&[("admin", "*"), ("admin", "cluster")]).is_all());
    }

    #[test]
    fn grants_read_as_they_are_written() {
        for (right, scope) in [("read", "t"), ("write", "t:f"), ("admin", "cluster"), ("read", "a.b*:x-*")] {
            let grant = Grant { right: right.parse().unwrap(), scope: scope.parse().unwrap() };
            assert_eq!(grant.to_string(), format!("{right} on {scope}"));
        }
        let bad = vec!["", ":f", "t:", "a*b", "t:f:g", "ä"];
        assert!(bad.into_iter().all(|scope| scope.parse::<Scope>().is_err()));
        assert!("rw".parse::<Right>().is_err());
    }
}
