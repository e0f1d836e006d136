//! The list of what a session subscribes to. Most clients of a house have one subscription or none, and those have no
//! allocation for it.

use std::ops::Deref;
use std::slice;

use super::index::SubscriptionKey;

#[derive(Default)]
pub struct Subscriptions(List);

#[derive(Default)]
enum List {
    #[default]
    None,
    One(SubscriptionKey),
    // Boxed, because a Vec would make the list half as large again for everybody.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<SubscriptionKey>>),
}

impl Subscriptions {
    /// Adds one that is not in the list.
    pub fn push(&mut self, key: SubscriptionKey) {
        match &mut self.0 {
            List::None => self.0 = List::One(key),
            List::One(first) => self.0 = List::Many(Box::new(vec![*first, key])),
            List::Many(keys) => keys.push(key),
        }
    }

    /// Removes one, whose place the last takes; false if it is not in the list.
    pub fn remove(&mut self, key: SubscriptionKey) -> bool {
        let Some(at) = self.iter().position(|&own| own == key) else { return false };
        match &mut self.0 {
            List::Many(keys) => {
                keys.swap_remove(at);
            }
            _ => self.0 = List::None,
        }
        true
    }

    /// Gives back the room of those that are gone.
    pub fn shrink(&mut self) {
        if let List::Many(keys) = &mut self.0 {
            match keys[..] {
                [] => self.0 = List::None,
                [key] => self.0 = List::One(key),
                _ => keys.shrink_to_fit(),
            }
        }
    }
}

impl Deref for Subscriptions {
    type Target = [SubscriptionKey];

    fn deref(&self) -> &[SubscriptionKey] {
        match &self.0 {
            List::None => &[],
            List::One(key) => slice::from_ref(key),
            List::Many(keys) => keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_and_not_removed_is_in_the_list() {
        let key = SubscriptionKey::of_number;
        let mut list = Subscriptions::default();
        assert!(!list.remove(key(0)));
        for count in 1..6 {
            (0..count).for_each(|number| list.push(key(number)));
            for number in 0..count {
                assert_eq!(list.len() as u64, count - number);
                assert!(!list.remove(key(count)) && list.remove(key(number)) && !list.remove(key(number)));
                if number % 2 == 0 {
                    list.shrink();
                }
                assert!((number + 1..count).all(|left| list.contains(&key(left))));
            }
            assert!(list.is_empty());
        }
    }

    #[test]
    fn one_subscription_has_no_allocation() {
        assert_eq!(size_of::<Subscriptions>(), 16);
        let mut list = Subscriptions::default();
        (0..5).for_each(|number| list.push(SubscriptionKey::of_number(number)));
        (1..5).for_each(|number| assert!(list.remove(SubscriptionKey::of_number(number))));
        list.shrink();
        assert!(matches!(list.0, List::One(_)));
        list.push(SubscriptionKey::of_number(9));
        assert!(list.remove(SubscriptionKey::of_number(0)) && list.remove(SubscriptionKey::of_number(9)));
        list.shrink();
        assert!(matches!(list.0, List::None));
    }
}
