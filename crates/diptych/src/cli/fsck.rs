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
    let (damaged, hint) = match folder.join("raft.log").exists() {
        true => (master(&*disk, out)?, REPAIRED),
        false => node(&disk, out)?,
    };
    match damaged {
        0 => Ok(()),
        count => {
            let files = if count == 1 { "1 finding of damage" } else { &format!("{count} findings of damage") };
            Err(Failure::new(Exit::Failed, format!("{}: {files}", folder.display())).hint(hint))
        }
    }
}

const REPAIRED: &str = "start the process: a node makes damaged tablets anew from the others; see docs/operations.md";
const KEPT: &str = "only checkpoints are damaged, which no node repairs: remove them, and make new ones";

/// How many findings of damage there are, and what to do about them.
fn node(disk: &Arc<dyn Disk>, out: &mut Output) -> Result<(usize, &'static str), Failure> {
    let (whose, checked) = node::fsck::fsck(disk);
    let kept = |finding: &node::fsck::Finding| finding.file.starts_with(store::checkpoint::DIR);
    let hint = if checked.findings.iter().all(|finding| !finding.damage || kept(finding)) { KEPT } else { REPAIRED };
    let damaged = checked.findings.iter().filter(|finding| finding.damage).count();
    if out.json {
        let finding = |finding: &node::fsck::Finding| json!({"file": finding.file, "damage": finding.damage, "what": finding.what});
        let item = |item: &store::trash::Item| json!({"file": item.path, "bytes": item.bytes});
        let checkpoint = |kept: &store::fsck::Kept| json!({"name": kept.name, "complete": kept.complete, "tablets": kept.tablets, "bytes": kept.bytes});
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
            "checkpoints": checked.checkpoints.iter().map(checkpoint).collect::<Vec<_>>(),
        }))?;
        return Ok((damaged, hint));
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
    for kept in &checked.checkpoints {
        let state = if kept.complete { "complete" } else { "incomplete" };
        let size = show::size(kept.bytes);
        out.line(format!("checkpoint {}: {state}, {} tablets here, {size}", kept.name, kept.tablets))?;
    }
    Ok((damaged, hint))
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
