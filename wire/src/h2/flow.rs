//! Flow-control windows (RFC 9113 5.2 and 6.9).
//!
//! The receiving side refills in halves: one WINDOW_UPDATE per half window, not one per frame. The
//! sending side is a signed number, for a smaller SETTINGS_INITIAL_WINDOW_SIZE can make the window
//! of an open stream negative.

/// No window may pass this.
pub const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// What the protocol says before any SETTINGS.
pub const WINDOW_BYTES_INITIAL: u32 = 65_535;

/// A window we grant.
#[derive(Debug, Clone, Copy)]
pub struct ReceiveWindow {
    size: u32,
    /// What the peer may still send.
    available: u32,
}

/// The peer sent more than it was allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowExceeded;

impl ReceiveWindow {
    pub const fn new(size: u32) -> Self {
        Self {
            size,
            available: size,
        }
    }

    /// Books received bytes.
    #[inline]
    pub fn on_data(&mut self, bytes: u32) -> Result<(), WindowExceeded> {
        self.available = self.available.checked_sub(bytes).ok_or(WindowExceeded)?;
        Ok(())
    }

    /// The increment to announce now, if half of the window is used up.
    #[inline]
    pub fn refill(&mut self) -> Option<u32> {
        if self.available > self.size / 2 {
            return None;
        }
        let increment = self.size - self.available;
        self.available = self.size;
        (increment > 0).then_some(increment)
    }
}

/// A window the peer grants us.
#[derive(Debug, Clone, Copy)]
pub struct SendWindow(i64);

/// The peer raised a window past its maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOverflow;

impl SendWindow {
    pub const fn new(bytes: u32) -> Self {
        Self(bytes as i64)
    }

    /// Bytes that may be sent now.
    #[inline]
    pub fn available(self) -> usize {
        self.0.max(0) as usize
    }

    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
        assert!(self.0 >= 0, "sent {} bytes past the window", -self.0);
    }

    /// WINDOW_UPDATE, or a change of SETTINGS_INITIAL_WINDOW_SIZE, which may be negative.
    pub fn adjust(&mut self, delta: i64) -> Result<(), WindowOverflow> {
        let window = self.0 + delta;
        if window > i64::from(WINDOW_BYTES_MAX) {
            return Err(WindowOverflow);
        }
        self.0 = window;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receiving_refills_in_halves() {
        let mut window = ReceiveWindow::new(100);
        window.on_data(49).expect("inside");
        assert_eq!(window.refill(), None);
        window.on_data(1).expect("inside");
        assert_eq!(window.refill(), Some(50));
        window.on_data(100).expect("full again");
        assert_eq!(window.on_data(1), Err(WindowExceeded));
        assert_eq!(window.refill(), Some(100));
        assert_eq!(ReceiveWindow::new(0).refill(), None);
    }

    #[test]
    fn sending_may_go_negative_but_not_overflow() {
        let mut window = SendWindow::new(10);
        window.consume(10);
        window.adjust(-5).expect("smaller is fine");
        assert_eq!(window.available(), 0);
        window.adjust(6).expect("inside");
        assert_eq!(window.available(), 1);
        assert_eq!(
            window.adjust(i64::from(WINDOW_BYTES_MAX)),
            Err(WindowOverflow)
        );
        assert_eq!(window.available(), 1);
    }
}
