//! What the kernel knows about this process: descriptors, memory, processor time, network bytes.
//!
//! Always true here: a value that cannot be read or understood is left out, never guessed. Reads a few
//! files under `/proc` each time it is asked; the scraper asks, off the request path.

use std::fs;

/// The unit of times in `/proc`, the same on every Linux architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct ProcessFacts {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) start_time_seconds: Option<f64>,
    pub(super) open_fds: Option<f64>,
    pub(super) max_fds: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    pub(super) virtual_bytes_max: Option<f64>,
    pub(super) received_bytes: Option<f64>,
    pub(super) sent_bytes: Option<f64>,
}

impl ProcessFacts {
    pub(super) fn read() -> ProcessFacts {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (stat, system) = (read("/proc/self/stat"), read("/proc/stat"));
        let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
        let net = read("/proc/self/net/netstat");
        ProcessFacts {
            cpu_seconds: cpu_seconds(&stat),
            start_time_seconds: start_time_seconds(&stat, &system),
            open_fds: open_fds(),
            max_fds: limit(&limits, "Max open files"),
            resident_bytes: kilobytes(&status, "VmRSS:"),
            virtual_bytes: kilobytes(&status, "VmSize:"),
            virtual_bytes_max: limit(&limits, "Max address space"),
            received_bytes: ip_octets(&net, "InOctets"),
            sent_bytes: ip_octets(&net, "OutOctets"),
        }
    }
}

/// Page faults of the calling thread that waited for the disk, since it started. A read of one small
/// `/proc` file: about once a second is often enough.
pub fn thread_major_faults() -> Option<u64> {
    stat_field(&fs::read_to_string("/proc/thread-self/stat").ok()?, 12)
}

/// Fields of `stat` are numbered from 1; the second is a name in parentheses that may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name
        .split(' ')
        .nth(number.checked_sub(3)?)?
        .trim()
        .parse()
        .ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let ticks = stat_field(stat, 14)? + stat_field(stat, 15)?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

fn start_time_seconds(stat: &str, system: &str) -> Option<f64> {
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot: f64 = boot.trim().parse().ok()?;
    Some(boot + stat_field(stat, 22)? as f64 / TICKS_PER_SECOND)
}

fn open_fds() -> Option<f64> {
    // Since Linux 6.2 the size of this directory is its number of entries; before, it is zero.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64),
        count => Some(count as f64),
    }
}

/// The soft limit.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024.0)
}

/// `netstat` has pairs of lines: names, then numbers.
fn ip_octets(net: &str, name: &str) -> Option<f64> {
    let mut lines = net.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let position = names.split(' ').position(|known| known == name)?;
    numbers.split(' ').nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4 0 1000 9 9 9";
        assert_eq!(stat_field(stat, 12), Some(9));
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(
            start_time_seconds(stat, "cpu 1\nbtime 100\nx 1"),
            Some(110.0)
        );
        assert_eq!(stat_field("7 (x", 12), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 4096      files\n\
                      Max address space         unlimited            unlimited bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), Some(u64::MAX as f64));
        assert_eq!(
            kilobytes("VmSize:\t   16 kB\nVmRSS:\t 8 kB\n", "VmRSS:"),
            Some(8192.0)
        );
        let net = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 5 6\n";
        assert_eq!(ip_octets(net, "InOctets"), Some(5.0));
        assert_eq!(ip_octets(net, "OutOctets"), Some(6.0));
        assert_eq!(ip_octets("", "InOctets"), None);
    }

    #[test]
    fn this_process_has_facts() {
        let facts = ProcessFacts::read();
        assert!(
            facts.open_fds > Some(2.0) && facts.max_fds >= facts.open_fds,
            "{facts:?}"
        );
        assert!(facts.resident_bytes > Some(100_000.0), "{facts:?}");
        assert!(thread_major_faults().is_some());
    }
}
