//! A client id as it is kept. Every session has one, so those of a usual length, up to 22 bytes, have no allocation of their own.

use std::fmt;
use std::ops::Deref;

use super::text::Text;

pub struct ClientId(Text<22>);

impl From<&str> for ClientId {
    fn from(text: &str) -> ClientId {
        ClientId(Text::new(text.as_bytes()))
    }
}

impl ClientId {
    /// For whoever hashes or compares it: `deref` looks whether it is UTF-8.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Deref for ClientId {
    type Target = str;

    // In a hundred places, none of which is in a hurry.
    #[inline(never)]
    fn deref(&self) -> &str {
        // It was a `str`.
        std::str::from_utf8(self.0.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_length_come_back() {
        for text in ["", "c", "zigbee2mqtt_0123456789", "zigbee2mqtt_0123456789a", "Ä".repeat(40).as_str()] {
            let id = ClientId::from(text);
            assert_eq!((&*id, id.as_bytes()), (text, text.as_bytes()));
        }
        assert_eq!(size_of::<ClientId>(), 24);
    }
}
