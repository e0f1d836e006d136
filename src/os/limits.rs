//! The limit of open descriptors, which is the limit of connections: distributions start daemons with a soft limit
//! of 1024 and leave it to the daemon to ask for more.

use std::io;

/// Raises the soft limit of open descriptors to the hard one and returns the limit that holds now. A limit that
/// cannot be raised stays as it is.
pub fn raise_descriptor_limit() -> io::Result<u32> {
    let mut limit = descriptor_limit()?;
    if limit.rlim_cur != limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: setrlimit reads one rlimit, and `raised` outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
            limit = raised;
        }
    }
    Ok(limit.rlim_cur.try_into().unwrap_or(u32::MAX))
}

fn descriptor_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit into `limit`, which is ours for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_descriptor_limit().unwrap();
        let now = descriptor_limit().unwrap();
        assert_eq!(now.rlim_cur, now.rlim_max);
        assert!(raised >= 3, "{raised}");
    }
}
