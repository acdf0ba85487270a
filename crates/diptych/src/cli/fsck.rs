//! `diptych fsck`: reads the folder of a stopped process and says what is damaged. Changes nothing.

use std::path::Path;
use std::sync::Arc;

use disk::{Disk, KernelDisk};
use serde_json::json;

use super::failure::{Exit, Failure};
use super::show::{self, Output};
use crate::host::consensus;

/// Exits with 1 if anything is damaged.
pub fn run(folder: &Path, out: &mut Output) -> Result<(), Failure> {
    if !folder.is_dir() {
        return Err(Failure::not_found(format!("{} is no folder", folder.display())));
    }
    let is_ours = ["node.id", "log", "raft.log", "manifest"].iter().any(|name| folder.join(name).exists());
    if !is_ours {
        let hint = "give the folder of one process, such as diptych-data/n1 or diptych-data/m1";
        return Err(Failure::not_found(format!("{} holds no data of a node or master", folder.display())).hint(hint));
    }
    let disk = KernelDisk::open(folder).map_err(|error| Failure::failed(error.to_string()))?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let damaged = if folder.join("raft.log").exists() { master(&*disk, out)? } else { node(&disk, out)? };
    match damaged {
        0 => Ok(()),
        count => {
            let files = if count == 1 { "1 finding of damage" } else { &format!("{count} findings of damage") };
            let hint = "start the process: a node makes damaged tablets anew from the others; see docs/operations.md";
            Err(Failure::new(Exit::Failed, format!("{}: {files}", folder.display())).hint(hint))
        }
    }
}

fn node(disk: &Arc<dyn Disk>, out: &mut Output) -> Result<usize, Failure> {
    let (whose, checked) = node::fsck::fsck(disk);
    let damaged = checked.findings.iter().filter(|finding| finding.damage).count();
    if out.json {
        let finding = |finding: &node::fsck::Finding| json!({"file": finding.file, "damage": finding.damage, "what": finding.what});
        let item = |item: &store::trash::Item| json!({"file": item.path, "bytes": item.bytes});
        out.line(json!({
            "folder_of": whose,
            "clean": damaged == 0,
            "segments": checked.segments,
            "records": checked.records,
            "tablets": checked.tablets,
            "tables": checked.tables,
            "bytes": checked.bytes,
            "findings": checked.findings.iter().map(finding).collect::<Vec<_>>(),
            "trash": checked.trash.iter().map(item).collect::<Vec<_>>(),
        }))?;
        return Ok(damaged);
    }
    out.line(whose.unwrap_or_else(|| String::from("nobody's folder")))?;
    for finding in &checked.findings {
        let kind = if finding.damage { "damaged" } else { "note" };
        out.line(format!("{kind}: {}: {}", finding.file, finding.what))?;
    }
    out.line(format!(
        "log: {} records in {} segments; tables: {} of {} tablets, {}",
        show::count(checked.records),
        checked.segments,
        checked.tables,
        checked.tablets,
        show::size(checked.bytes)
    ))?;
    let bytes: u64 = checked.trash.iter().map(|item| item.bytes).sum();
    out.line(format!("trash: {} files, {}", checked.trash.len(), show::size(bytes)))?;
    Ok(damaged)
}

fn master(disk: &dyn Disk, out: &mut Output) -> Result<usize, Failure> {
    let mut damaged = 0;
    let mut findings = Vec::new();
    for (file, found) in consensus::check_files(disk) {
        let (good, what) = match found {
            Ok((frames, None)) => (true, format!("{frames} frames")),
            Ok((frames, Some(note))) => (true, format!("{frames} frames; the next start repairs: {note}")),
            Err(error) => (false, error.to_string()),
        };
        damaged += usize::from(!good);
        if !out.json {
            out.line(format!("{}{file}: {what}", if good { "" } else { "damaged: " }))?;
        }
        findings.push(json!({"file": file, "damage": !good, "what": what}));
    }
    if out.json {
        out.line(json!({"folder_of": "master", "clean": damaged == 0, "findings": findings}))?;
    }
    Ok(damaged)
}
