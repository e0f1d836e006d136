//! Which deliveries were due: bipartite matching of what a client saw with what it was owed.

/// Finds a partner for each of `lefts`, in their order; earlier ones are never given up for later ones. `edges[left]` lists the
/// rights a left may have. Gives back the lefts without a partner.
pub fn unmatched(lefts: &[usize], edges: &[Vec<usize>], right_count: usize) -> Vec<usize> {
    let mut partner = vec![None; right_count];
    let mut alone = Vec::new();
    for &left in lefts {
        let mut tried = vec![false; right_count];
        if !augment(left, edges, &mut partner, &mut tried) {
            alone.push(left);
        }
    }
    alone
}

fn augment(left: usize, edges: &[Vec<usize>], partner: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    // Free ones first: chains are rare.
    if let Some(&right) = edges[left].iter().find(|&&right| partner[right].is_none()) {
        partner[right] = Some(left);
        return true;
    }
    for &right in &edges[left] {
        if std::mem::replace(&mut tried[right], true) {
            continue;
        }
        let Some(other) = partner[right] else { continue };
        if augment(other, edges, partner, tried) {
            partner[right] = Some(left);
            return true;
        }
    }
    false
}

#[test]
fn everybody_gets_a_partner_if_there_are_enough() {
    let edges = vec![vec![0], vec![0, 1], vec![1, 2]];
    assert_eq!(unmatched(&[2, 1, 0], &edges, 3), []);
    assert_eq!(unmatched(&[0, 1, 2], &[vec![0], vec![0], vec![1]], 2), [1]);
}
