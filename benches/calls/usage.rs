//! What a process uses, as the kernel counts it.

use std::fs;
use std::process::Command;

/// Processor time that the processes of a group have used, user and system, seconds; to a hundredth. Those that have ended
/// don't count.
pub fn processor(group: u32) -> f64 {
    stats().filter_map(|stat| (stat.group == group).then_some(stat.used)).sum()
}

/// What the kernel says about a process.
struct Stat {
    process: u32,
    group: u32,
    /// Seconds.
    used: f64,
}

fn stats() -> impl Iterator<Item = Stat> {
    let processes = fs::read_dir("/proc").expect("/proc can be read");
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats.filter_map(|stat| {
        let process = stat.split(' ').next()?.parse().ok()?;
        // The name, in brackets, may hold anything; the group is field 5, utime and stime are 14 and 15, in hundredths.
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Stat { process, group: number(2)? as u32, used: (number(11)? + number(12)?) / 100.0 })
    })
}

/// When processes have a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Whenever they want one, before all who don't go first.
    First,
    /// When it is their turn among all others.
    Usual,
}

impl Turn {
    /// Gives it to these processes from now on, to all of their threads.
    pub fn give_to(self, processes: impl IntoIterator<Item = u32>) {
        let policy = match self {
            Self::First => ["--rr", "1"],
            Self::Usual => ["--other", "0"],
        };
        for process in processes {
            let [kind, priority] = policy;
            let id = process.to_string();
            let done = Command::new("chrt").args(["--all-tasks", kind, "--pid", priority, &id]).output();
            assert!(done.as_ref().is_ok_and(|done| done.status.success()), "chrt: {done:?}");
        }
    }
}

/// The processes of a group.
pub fn of_group(group: u32) -> Vec<u32> {
    stats().filter_map(|fields| (fields.group == group).then_some(fields.process)).collect()
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
