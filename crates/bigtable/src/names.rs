//! Where things are: `projects/P/instances/I/tables/T`, and what the same table is called everywhere else.
//!
//! ```text
//!   projects/shop/instances/main/tables/orders      ◀──▶  shop.main.orders
//!   projects/diptych/instances/diptych/tables/orders ◀──▶  orders           unless `orders` has two dots in it
//! ```
//!
//! An instance is there as soon as somebody names it, as clients of the emulator expect. Tables of different instances are
//! different tables. A dot or a colon in a project's id has an escape elsewhere: `domain.com:shop` is `domain-_d-com-_c-shop`.

use model::limits;

use crate::Problem;

/// Project and instance of tables that have no such names anywhere else.
pub const HOME: &str = "diptych";
/// Characters of a table's id.
const TABLE: usize = 50;
/// Characters of the ids of projects and instances.
const PARENT: usize = 63;

/// Characters of a project's id that a table's name cannot have beside its dots, and what stands for them there.
const ESCAPES: [(char, &str); 2] = [('.', "-_d-"), (':', "-_c-")];

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
        if !is_id(project, b"-_.:") || escapes(project) || !is_id(instance, b"-_") {
            return Err(Problem::invalid(format!(
                "Error in field '{field}' : {name:?} has a project or an instance that is no id; use 1 to {PARENT} of a-z A-Z 0-9 - _ with \
                 a letter or digit first, and of a project . and :"
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
        let table = Table { instance: self.clone(), table: id.to_owned() };
        let long = table.native().len();
        if long > limits::TABLE_NAME {
            let what = format!("{:?} would have {long} characters as a table's name", table.native());
            return Err(Problem::invalid(format!(
                "Error in field '{field}' : {what}; the limit is {}",
                limits::TABLE_NAME
            )));
        }
        Ok(table)
    }
}

/// Says what is wrong with a project's id, if anything.
pub fn check_project(field: &str, project: &str) -> Result<(), Problem> {
    match is_id(project, b"-_.:") && !escapes(project) {
        true => Ok(()),
        false => Err(Problem::invalid(format!("Error in field '{field}' : {project:?} is no project's id"))),
    }
}

fn is_id(id: &str, marks: &[u8]) -> bool {
    let characters = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte));
    !id.is_empty() && id.len() <= PARENT && characters && id.as_bytes()[0].is_ascii_alphanumeric()
}

/// Does it look like what stands for another one?
fn escapes(project: &str) -> bool {
    ESCAPES.iter().any(|(_, escape)| project.contains(escape))
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
            false => {
                let escape = |project: String, (character, escape): (char, &str)| project.replace(character, escape);
                let project = ESCAPES.into_iter().fold(project.clone(), escape);
                format!("{project}.{instance}.{}", self.table)
            }
        }
    }

    /// The table that is called so everywhere else.
    pub fn of_native(name: &str) -> Table {
        let home = || Instance { project: HOME.to_owned(), instance: HOME.to_owned() };
        match name.splitn(3, '.').collect::<Vec<_>>()[..] {
            [project, instance, table] if !project.is_empty() && !instance.is_empty() && !table.is_empty() => {
                let unescape = |project: String, (character, escape): (char, &str)| {
                    project.replace(escape, character.encode_utf8(&mut [0; 4]))
                };
                let project = ESCAPES.into_iter().fold(project.to_owned(), unescape);
                let instance = Instance { project, instance: instance.to_owned() };
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
            ("projects/domain.com:shop/instances/i/tables/t", "domain-_d-com-_c-shop.i.t"),
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
        let dots = format!("projects/{}/instances/{}/tables/{}", "a.".repeat(30), "i".repeat(60), "t".repeat(50));
        let more = ["projects/p/instances/i.j/tables/t", "projects/p/instances/i/tables/-t", &dots];
        for name in bad.into_iter().chain(more).chain(["projects/p-_d-/instances/i/tables/t"]) {
            let problem = Table::parse("table_name", name).unwrap_err();
            assert!(problem.message.starts_with("Error in field 'table_name'"), "{problem}");
        }
    }
}
