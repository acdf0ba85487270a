//! The house is as ARCHITECTURE.md draws it.

#![allow(clippy::disallowed_methods, reason = "a test reads the sources of the project")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// "Every dependency goes at least one floor down", and the table says which there are.
#[test]
fn the_arrows_are_those_of_the_table() {
    let drawn = drawn_crates();
    let built = built_crates();
    assert_eq!(drawn.keys().collect::<Vec<_>>(), built.keys().collect::<Vec<_>>());
    for (name, uses) in &built {
        let (floor, allowed) = &drawn[name];
        for used in uses {
            assert!(allowed.contains(used), "{name} uses {used}, which ARCHITECTURE.md does not draw");
            assert!(drawn[used].0 < *floor, "{name} on floor {floor} uses {used} on floor {}", drawn[used].0);
        }
    }
}

/// The compiler keeps the ground floor pure only while it is `no_std`.
#[test]
fn words_and_cores_know_no_world() {
    for name in ["model", "protocol"] {
        let source = read(&root().join("crates").join(name).join("src/lib.rs"));
        assert!(source.contains("#![no_std]"), "{name} must be no_std");
    }
}

/// Decision 0009: deliberate faults are in no build but that of `make mutants`.
#[test]
fn nobody_enables_mutants_but_the_simulator_when_asked() {
    let mut features = BTreeMap::new();
    for name in built_crates().keys() {
        let manifest: toml::Table =
            read(&root().join("crates").join(name).join("Cargo.toml")).parse().expect("a manifest");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = manifest.get(section).and_then(toml::Value::as_table);
            let enables = |used: &toml::Value| used.get("features").is_some_and(|list| names(list, "mutants"));
            assert!(!dependencies.into_iter().flat_map(toml::Table::values).any(enables), "{name} has mutants");
        }
        if let Some(list) = manifest.get("features").and_then(toml::Value::as_table) {
            assert!(!list.get("default").is_some_and(|list| names(list, "mutants")), "{name} has mutants by default");
            let enabling = list.iter().filter(|(_, list)| names(list, "mutants"));
            features.insert(name.clone(), enabling.map(|(feature, _)| feature.clone()).collect::<Vec<_>>());
        }
    }
    features.retain(|_, enabling| !enabling.is_empty());
    assert_eq!(features, BTreeMap::from([("sim".to_owned(), vec!["mutants".to_owned()])]));
    let workspace: toml::Table = read(&root().join("Cargo.toml")).parse().expect("a manifest");
    let shared = workspace["workspace"]["dependencies"].as_table().expect("shared dependencies");
    assert!(!shared.values().any(|used| used.get("features").is_some_and(|list| names(list, "mutants"))));
}

/// Is it a list of features that has this one, perhaps of another crate?
fn names(list: &toml::Value, feature: &str) -> bool {
    let entries = list.as_array().into_iter().flatten().filter_map(toml::Value::as_str);
    entries.into_iter().any(|entry| entry.rsplit('/').next() == Some(feature))
}

/// Crates as ARCHITECTURE.md draws them: floor, and which of ours each may use.
fn drawn_crates() -> BTreeMap<String, (u32, BTreeSet<String>)> {
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, floor, uses] = cells[..] else { return None };
        Some((quoted(name).pop()?, (floor.parse().ok()?, quoted(uses).into_iter().collect())))
    };
    let drawn: BTreeMap<_, _> = read(&root().join("ARCHITECTURE.md")).lines().filter_map(row).collect();
    assert!(drawn.len() > 5, "the table of arrows was not found");
    drawn
}

/// Crates as their manifests say, with the dependencies that are ours (not those of tests).
fn built_crates() -> BTreeMap<String, BTreeSet<String>> {
    let folder = root().join("crates");
    let names: BTreeSet<String> = std::fs::read_dir(&folder)
        .expect("the crates' folder")
        .map(|entry| entry.expect("a folder's entry").file_name().into_string().expect("a plain name"))
        .collect();
    let uses = |name: &String| {
        let manifest: toml::Table = read(&folder.join(name).join("Cargo.toml")).parse().expect("a manifest");
        assert_eq!(manifest["package"]["name"].as_str(), Some(name.as_str()), "package and folder have one name");
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        let ours = dependencies.into_iter().flat_map(toml::Table::keys).filter(|used| names.contains(*used));
        (name.clone(), ours.cloned().collect())
    };
    names.iter().map(uses).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
