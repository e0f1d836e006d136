//! How much there was of something at most, so that it can be told that most of it is gone, and with it the need for the memory
//! it took.

#[derive(Default)]
pub struct Peak(usize);

impl Peak {
    /// There are `count` of it.
    #[inline]
    pub fn note(&mut self, count: usize) {
        self.0 = self.0.max(count);
    }

    /// Less than half is left, not counting `few`, whose memory is not looked after.
    #[inline]
    pub fn is_past(&self, count: usize, few: usize) -> bool {
        self.0 > 2 * count + few
    }

    /// Memory was given back while there were `count`.
    pub fn begin_anew(&mut self, count: usize) {
        self.0 = count;
    }
}
