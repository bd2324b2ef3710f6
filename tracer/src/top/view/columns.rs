//! Which columns there is room for.

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<Kind> {
    /// What is in it.
    pub(super) kind: Kind,
    /// Its name.
    pub(super) title: &'static str,
    /// Columns of the terminal that it has at least …
    pub(super) least: usize,
    /// … and at most.
    pub(super) most: usize,
    /// The higher, the sooner it is left out; 0 never is.
    pub(super) rank: u8,
    /// Its cells end at the same place.
    pub(super) right: bool,
}

impl<Kind: Copy> Column<Kind> {
    pub(super) const fn new(
        kind: Kind,
        title: &'static str,
        (least, most): (usize, usize),
        rank: u8,
        right: bool,
    ) -> Self {
        Self {
            kind,
            title,
            least,
            most,
            rank,
            right,
        }
    }
}

/// The columns that there is room for, with their widths: the most important ones; what is left over is
/// shared by those that can use it.
pub(super) fn fit<Kind: Copy>(all: &[Column<Kind>], width: usize) -> Vec<(Column<Kind>, usize)> {
    let mut wanted: Vec<usize> = (0..all.len()).collect();
    wanted.sort_by_key(|at| all[*at].rank);
    let mut used = 0;
    let mut kept = Vec::new();
    for at in wanted {
        let gap = usize::from(!kept.is_empty());
        if all[at].rank > 0 && used + gap + all[at].least > width {
            // A less important one that is narrower would take its place: the order would not be
            // what is told.
            break;
        }
        used += gap + all[at].least;
        kept.push(at);
    }
    kept.sort_unstable();
    let mut widths: Vec<usize> = kept.iter().map(|at| all[*at].least).collect();
    let mut left = width.saturating_sub(used);
    // One at a time, so that all grow alike.
    while left > 0 {
        let before = left;
        for (at, wide) in kept.iter().zip(&mut widths) {
            if left > 0 && *wide < all[*at].most {
                *wide += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    kept.into_iter().map(|at| all[at]).zip(widths).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn column(kind: u8, least: usize, most: usize, rank: u8) -> Column<u8> {
        Column {
            kind,
            title: "",
            least,
            most,
            rank,
            right: false,
        }
    }

    #[test]
    fn the_important_ones_stay_in_their_order() {
        let all = [
            column(0, 10, 20, 0),
            column(1, 5, 5, 2),
            column(2, 5, 30, 1),
        ];
        let shown = |width| -> Vec<(u8, usize)> {
            let fitted = fit(&all, width);
            fitted
                .into_iter()
                .map(|(it, wide)| (it.kind, wide))
                .collect()
        };
        assert_eq!(shown(5), [(0, 10)]);
        assert_eq!(shown(16), [(0, 10), (2, 5)]);
        assert_eq!(shown(21), [(0, 13), (2, 7)]);
        assert_eq!(shown(22), [(0, 10), (1, 5), (2, 5)]);
        assert_eq!(shown(200), [(0, 20), (1, 5), (2, 30)]);
    }
}
