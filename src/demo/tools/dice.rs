//! Dice.

/// `count` throws of a die with `sides` sides.
///
/// # Panics
/// When the operating system gives no randomness.
pub fn roll(count: u64, sides: u64) -> Vec<u64> {
    (0..count).map(|_| one(sides)).collect()
}

fn one(sides: u64) -> u64 {
    // Numbers beyond the last whole multiple of `sides` would favour the low faces: draw again.
    let fair = u64::MAX - u64::MAX % sides;
    loop {
        let drawn = getrandom::u64().expect("the operating system provides randomness");
        if drawn < fair {
            return drawn % sides + 1;
        }
    }
}

/// The throws in a sentence.
pub fn describe(rolls: &[u64], sides: u64) -> String {
    let shown: Vec<_> = rolls.iter().map(u64::to_string).collect();
    match rolls {
        [single] => format!("A die with {sides} sides shows {single}."),
        _ => {
            let total: u64 = rolls.iter().sum();
            format!("{} dice with {sides} sides show {}; together {total}.", rolls.len(), shown.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throws_stay_on_the_die_and_reach_every_side() {
        let rolls = roll(2000, 6);
        assert!(rolls.iter().all(|side| (1..=6).contains(side)));
        assert!((1..=6).all(|side| rolls.contains(&side)));
    }

    #[test]
    fn the_sentence_adds_up() {
        assert_eq!(describe(&[3, 5], 6), "2 dice with 6 sides show 3, 5; together 8.");
        assert_eq!(describe(&[4], 20), "A die with 20 sides shows 4.");
    }
}
