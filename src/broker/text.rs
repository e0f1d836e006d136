//! A text that is kept a hundred thousand times: short ones without an allocation of their own, so that whoever finds the
//! place of one has its bytes in the same line of the processor's cache.

/// Up to `SHORT_MAX` bytes, at most 255, take no more room than the text itself: two bytes more than that.
pub enum Text<const SHORT_MAX: usize> {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Box<[u8]>),
}

impl<const SHORT_MAX: usize> Text<SHORT_MAX> {
    pub fn new(text: &[u8]) -> Text<SHORT_MAX> {
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
    fn texts_of_every_length_come_back() {
        for len in 0..60 {
            let text: Vec<u8> = (0..len).map(|at| at as u8 + 1).collect();
            assert_eq!(Text::<22>::new(&text).as_bytes(), text);
            assert_eq!(Text::<38>::new(&text).as_bytes(), text);
        }
        assert!(size_of::<Text<22>>() <= 24 && size_of::<Text<38>>() <= 40);
    }
}
