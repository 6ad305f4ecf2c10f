//! Sizes and times for people.

use std::time::Duration;

/// `4 ms`, `0.21 s`, `75.3 s`, `12m 05s`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 0.001 {
        return String::from("<1 ms");
    }
    if seconds < 0.1 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    if seconds < 10.0 {
        return format!("{seconds:.2} s");
    }
    if seconds < 120.0 {
        return format!("{seconds:.1} s");
    }
    let whole = Duration::from_secs_f64(seconds).as_secs();
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}

/// How old something is, in its two greatest units: `3d 4h`, `2h 05m`, `12m 30s`, `7s`.
pub(crate) fn age(age: Duration) -> String {
    let whole = age.as_secs();
    match (
        whole / 86400,
        whole / 3600 % 24,
        whole / 60 % 60,
        whole % 60,
    ) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes:02}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

/// `17 bytes`, `1.5 KiB`, `2.0 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} byte{}", if bytes == 1 { "" } else { "s" });
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // What would be shown as 1024.0 belongs to the next unit.
    while amount >= 1023.95 && units.len() > 0 {
        amount /= 1024.0;
        unit = units.next();
    }
    format!("{amount:.1} {}", unit.unwrap_or(&"TiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        assert_eq!(seconds(0.0), "<1 ms");
        assert_eq!(seconds(0.0042), "4 ms");
        assert_eq!(seconds(0.214), "0.21 s");
        assert_eq!(seconds(75.34), "75.3 s");
        assert_eq!(seconds(725.0), "12m 05s");
        assert_eq!(seconds(7260.0), "2h 01m");
        assert_eq!(age(Duration::from_secs(7)), "7s");
        assert_eq!(age(Duration::from_secs(7500)), "2h 05m");
        assert_eq!(age(Duration::from_secs(3 * 86400 + 4 * 3600)), "3d 4h");
        assert_eq!(size(1), "1 byte");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(size(1 << 31), "2.0 GiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}
