//! The journal of systemd as an output: one datagram for each line.
//!
//! Always true here: a line that the journal does not take is an error of the output, which then is given up like a file
//! that cannot be written.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

/// Where the journal takes lines.
const SOCKET: &str = "/run/systemd/journal/socket";

pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    pub(super) fn open() -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Journal { socket })
    }
}

impl Write for Journal {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.socket.send(&entry(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line in the journal's own form (systemd, "Native Journal Protocol"); the message has its length before it, because it may
/// have line ends.
fn entry(line: &[u8]) -> Vec<u8> {
    let message = line.strip_suffix(b"\n").unwrap_or(line);
    let mut out = format!(
        "PRIORITY={}\nSYSLOG_IDENTIFIER=pilaster\nMESSAGE\n",
        priority(message)
    )
    .into_bytes();
    out.extend_from_slice(&(message.len() as u64).to_le_bytes());
    out.extend_from_slice(message);
    out.push(b'\n');
    out
}

/// Syslog's number for the level that a line names near its beginning, in either form of lines.
fn priority(line: &[u8]) -> u8 {
    let head = String::from_utf8_lossy(&line[..line.len().min(64)]).to_lowercase();
    let levels = [
        ("fatal", 2),
        ("panic", 2),
        ("error", 3),
        ("warn", 4),
        ("info", 6),
    ];
    let names = |level: &str| {
        head.starts_with(&format!("{{\"level\":\"{level}\""))
            || head.contains(&format!("\t{level}\t"))
    };
    levels
        .iter()
        .find(|(level, _)| names(level))
        .map_or(7, |(_, priority)| *priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_their_level_and_length() {
        let sent = entry(b"{\"level\":\"warn\",\"msg\":\"x\"}\n");
        let head = b"PRIORITY=4\nSYSLOG_IDENTIFIER=pilaster\nMESSAGE\n\x1a\0\0\0\0\0\0\0{\"level\"";
        assert!(sent.starts_with(head), "{}", String::from_utf8_lossy(&sent));
        assert_eq!(priority(b"2026-01-01T00:00:00Z\tinfo\tcaller\tmsg"), 6);
        assert_eq!(priority(b"anything"), 7);
    }
}
