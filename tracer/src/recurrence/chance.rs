//! How likely chance makes such a pattern.

/// An upper bound of the probability that among `n` moments, each anywhere in a period with equal
/// probability, some `k` lie within one arc of `share` of the period.
///
/// For `k` given moments the probability is k·share^(k-1) where the share is at most a half (the arc
/// begins at one of them, and holds the others); the sum over all choices of `k` bounds it for any.
pub(super) fn within_arc(n: usize, k: usize, share: f64) -> f64 {
    if k < 2 || k > n || share >= 0.5 {
        return 1.0;
    }
    let logarithm =
        choose(n, k) + count(k).ln() + (count(k) - 1.0) * share.max(f64::MIN_POSITIVE).ln();
    logarithm.exp().min(1.0)
}

/// An upper bound of the probability that of `n` events at least `k` meet something that meets each
/// with probability `each`, where the first of them says what that is.
pub(super) fn meet(n: usize, k: usize, each: f64) -> f64 {
    if k < 2 || k > n || each >= 1.0 {
        return 1.0;
    }
    let logarithm =
        choose(n, k) + count(k).ln() + (count(k) - 1.0) * each.max(f64::MIN_POSITIVE).ln();
    logarithm.exp().min(1.0)
}

/// The logarithm of the number of ways to choose `k` of `n`.
fn choose(n: usize, k: usize) -> f64 {
    (1..=k.min(n - k))
        .map(|i| (count(n - i + 1) / count(i)).ln())
        .sum()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "there are at most some thousands"
)]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_bound_of_what_chance_does() {
        // The truth is a count of what a generator of random numbers does.
        let mut random = fastrand::Rng::with_seed(7);
        for (n, k, share) in [(3, 3, 0.1), (5, 3, 0.02), (8, 5, 0.1), (4, 4, 0.3)] {
            let tries = 20_000;
            let hits = (0..tries)
                .filter(|_| {
                    let mut at: Vec<f64> = (0..n).map(|_| random.f64()).collect();
                    at.sort_by(f64::total_cmp);
                    (0..n).any(|i| {
                        let end = at[(i + k - 1) % n] + if i + k > n { 1.0 } else { 0.0 };
                        end - at[i] <= share
                    })
                })
                .count();
            let truth = count(hits) / f64::from(tries);
            let bound = within_arc(n, k, share);
            assert!(truth <= bound * 1.15, "{n} {k} {share}: {truth} {bound}");
            if n == k {
                // With nothing to choose it is no bound but the probability itself.
                assert!(truth >= bound * 0.85, "{n} {k} {share}: {truth} {bound}");
            }
        }
    }
}
