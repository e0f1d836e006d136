//! The subscriptions as SIGUSR2 prints them.

use crate::harness::World;

fn tree(w: &World) -> String {
    let mut out = Vec::new();
    w.broker.subscription_tree(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn nobody_subscribes_and_nothing_is_printed() {
    let mut w = World::new();
    w.client("c");
    assert_eq!(tree(&w), "");
}

#[test]
fn subscriptions_are_a_tree_in_mosquittos_form() {
    let mut w = World::new();
    let (a, b) = (w.client("a"), w.client("b\n\u{1b}[2J"));
    w.subscribe(a, "house/+ 1 house/+/temperature 0 $SYS/broker/# 0 house 2 /x 0 # 0 $share/wall/house/+ 2");
    w.subscribe(b, "house/+ 0 house-2 0");
    let expected = "    \n\
                    \x20     \n\
                    \x20       x (a, 0)\n\
                    \x20     # (a, 0)\n\
                    \x20     house (a, 2)\n\
                    \x20       + (a, 1) (b\\n\\u{1b}[2J, 0) (a, 2, $share/wall)\n\
                    \x20         temperature (a, 0)\n\
                    \x20     house-2 (b\\n\\u{1b}[2J, 0)\n\
                    \x20   $SYS\n\
                    \x20     broker\n\
                    \x20       # (a, 0)\n";
    assert_eq!(tree(&w), expected);
}

#[test]
fn more_than_can_be_shown_is_counted() {
    let mut w = World::new();
    let c = w.client("c");
    let filters: Vec<String> = (0..10_003).map(|number| format!("t/{number} 0")).collect();
    filters.chunks(100).for_each(|some| w.subscribe(c, &some.join(" ")));
    let text = tree(&w);
    assert_eq!(text.lines().count(), 2 + 10_000 + 1);
    assert_eq!(text.lines().last(), Some("    ... and 3 filters more"));
}
