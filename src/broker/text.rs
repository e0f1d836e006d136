//! A text that is kept a hundred thousand times: short ones without an allocation of their own, so that whoever finds the
//! place of one has its bytes in the same line of the processor's cache. 24 bytes.

/// Texts up to this length take no more room.
const SHORT_MAX: usize = 22;

pub enum Text {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Box<[u8]>),
}

impl Text {
    pub fn new(text: &[u8]) -> Text {
        if text.len() > SHORT_MAX {
            return Text::Long(text.into());
        }
        let mut bytes = [0; SHORT_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Text::Short { len: text.len() as u8, bytes }
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Short { len, bytes } => &bytes[..usize::from(*len).min(SHORT_MAX)],
            Text::Long(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_come_back_and_take_24_bytes() {
        for len in 0..60 {
            let text: Vec<u8> = (0..len).map(|at| at as u8 + 1).collect();
            assert_eq!(Text::new(&text).as_bytes(), text);
        }
        assert!(size_of::<Text>() <= 24);
    }
}
