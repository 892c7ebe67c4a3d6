//! What a process uses, as the kernel counts it.

use std::fs;
use std::process::Command;

use crate::process::Process;

/// Processor time that the processes of a group have used, user and system, seconds; to a hundredth. Those that have ended
/// don't count.
pub fn processor(group: u32) -> f64 {
    let processes = fs::read_dir("/proc").expect("/proc can be read");
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let used = stats.filter_map(|stat| {
        // The name, in brackets, may hold anything; the group is field 5, utime and stime are 14 and 15, in hundredths.
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        (number(2)? == f64::from(group)).then_some((number(11)? + number(12)?) / 100.0)
    });
    used.sum()
}

/// From now on the kernel runs a process, all of its threads, only where nobody else wants the processor.
pub fn step_back(process: &Process) {
    let id = process.id().to_string();
    let done = Command::new("chrt").args(["--all-tasks", "--idle", "--pid", "0", &id]).output();
    assert!(done.as_ref().is_ok_and(|done| done.status.success()), "chrt: {done:?}");
}

/// Resident memory of a process, MiB.
pub fn resident(process: u32) -> f64 {
    field(process, "VmRSS:")
}

/// The most that was ever resident, MiB.
pub fn peak(process: u32) -> f64 {
    field(process, "VmHWM:")
}

fn field(process: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_else(|| panic!("a process to be measured has ended; see its log in {}", crate::DIRECTORY))
        / 1024.0
}
