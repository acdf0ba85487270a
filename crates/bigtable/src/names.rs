//! Where things are: `projects/P/instances/I/tables/T`, and what the same table is called everywhere else.
//!
//! ```text
//!   projects/shop/instances/main/tables/orders      ◀──▶  shop.main.orders
//!   projects/diptych/instances/diptych/tables/orders ◀──▶  orders           unless `orders` has two dots in it
//! ```
//!
//! An instance is there as soon as somebody names it, as clients of the emulator expect. Tables of different instances are
//! different tables.

use crate::Problem;

/// Project and instance of tables that have no such names anywhere else.
pub const HOME: &str = "diptych";
/// Characters of a table's id.
const TABLE: usize = 50;
/// Characters of the ids of projects and instances.
const PARENT: usize = 63;

/// An instance of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The project's id.
    pub project: String,
    /// The instance's id.
    pub instance: String,
}

/// A table of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Where it is.
    pub instance: Instance,
    /// Its id.
    pub table: String,
}

impl Instance {
    /// Reads `projects/P/instances/I`. `field` is where it stood.
    pub fn parse(field: &str, name: &str) -> Result<Instance, Problem> {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "instances", instance] => Instance::new(field, name, project, instance),
            _ => Err(Problem::invalid(format!(
                "Error in field '{field}' : {name:?} is no instance; expected projects/PROJECT/instances/INSTANCE"
            ))),
        }
    }

    fn new(field: &str, name: &str, project: &str, instance: &str) -> Result<Instance, Problem> {
        let good = |id: &str| {
            let characters = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            !id.is_empty() && id.len() <= PARENT && characters && id.as_bytes()[0].is_ascii_alphanumeric()
        };
        if !good(project) || !good(instance) {
            return Err(Problem::invalid(format!(
                "Error in field '{field}' : {name:?} has a project or an instance that is no id; use 1 to {PARENT} of a-z A-Z 0-9 - _ with \
                 a letter or digit first"
            )));
        }
        Ok(Instance { project: project.to_owned(), instance: instance.to_owned() })
    }

    /// `projects/P/instances/I`.
    pub fn path(&self) -> String {
        format!("projects/{}/instances/{}", self.project, self.instance)
    }

    /// Its table of this id, which is checked.
    pub fn table(&self, field: &str, id: &str) -> Result<Table, Problem> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if id.len() > TABLE || !id.bytes().all(good) || !id.bytes().next().is_some_and(first) {
            return Err(Problem::invalid(format!(
                "Error in field '{field}' : {id:?} is no table's id; use 1 to {TABLE} of a-z A-Z 0-9 - _ . with a letter, digit or _ first"
            )));
        }
        Ok(Table { instance: self.clone(), table: id.to_owned() })
    }
}

impl Table {
    /// Reads `projects/P/instances/I/tables/T`. `field` is where it stood.
    pub fn parse(field: &str, name: &str) -> Result<Table, Problem> {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "instances", instance, "tables", table] => {
                Instance::new(field, name, project, instance)?.table(field, table)
            }
            _ => Err(Problem::invalid(format!(
                "Error in field '{field}' : {name:?} is no table; expected projects/PROJECT/instances/INSTANCE/tables/TABLE"
            ))),
        }
    }

    /// `projects/P/instances/I/tables/T`.
    pub fn path(&self) -> String {
        format!("{}/tables/{}", self.instance.path(), self.table)
    }

    /// What it is called everywhere else.
    pub fn native(&self) -> String {
        let Instance { project, instance } = &self.instance;
        let at_home = project == HOME && instance == HOME;
        match at_home && self.table.matches('.').count() < 2 && !self.table.starts_with('_') {
            true => self.table.clone(),
            false => format!("{project}.{instance}.{}", self.table),
        }
    }

    /// The table that is called so everywhere else.
    pub fn of_native(name: &str) -> Table {
        let home = || Instance { project: HOME.to_owned(), instance: HOME.to_owned() };
        match name.splitn(3, '.').collect::<Vec<_>>()[..] {
            [project, instance, table] if !project.is_empty() && !instance.is_empty() && !table.is_empty() => {
                let instance = Instance { project: project.to_owned(), instance: instance.to_owned() };
                Table { instance, table: table.to_owned() }
            }
            _ => Table { instance: home(), table: name.to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_name_here_and_one_elsewhere() {
        let pairs = [
            ("projects/shop/instances/main/tables/orders", "shop.main.orders"),
            ("projects/diptych/instances/diptych/tables/orders", "orders"),
            ("projects/diptych/instances/diptych/tables/a.b", "a.b"),
            ("projects/diptych/instances/diptych/tables/a.b.c", "diptych.diptych.a.b.c"),
            ("projects/diptych/instances/diptych/tables/_hidden", "diptych.diptych._hidden"),
            ("projects/p/instances/i/tables/t.with.dots", "p.i.t.with.dots"),
        ];
        for (path, native) in pairs {
            let table = Table::parse("table_name", path).unwrap();
            assert_eq!((table.path().as_str(), table.native().as_str()), (path, native));
            assert_eq!(Table::of_native(native), table);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_field() {
        let long = format!("projects/p/instances/i/tables/{}", "t".repeat(51));
        let bad = [
            "",
            "orders",
            "projects/p/instances/i",
            "projects/p/instances/i/tables/",
            "projects//instances/i/tables/t",
            &long,
        ];
        for name in bad.into_iter().chain(["projects/p/instances/i.j/tables/t", "projects/p/instances/i/tables/-t"]) {
            let problem = Table::parse("table_name", name).unwrap_err();
            assert!(problem.message.starts_with("Error in field 'table_name'"), "{problem}");
        }
    }
}
