//! A curve in one line of text, for terminals that can show it.

/// Least to most.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of a curve at most.
const COLUMNS: usize = 20;

/// The curve of these values, each column a mean, on a logarithmic scale where they span more than a factor of 30.
pub(crate) fn sparks(values: &[f64]) -> String {
    let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if values.len() < 2 {
        return String::new();
    }
    let columns = values.len().min(COLUMNS);
    let mean = |at: usize| {
        let (from, to) = (at * values.len() / columns, (at + 1) * values.len() / columns);
        values[from..to].iter().sum::<f64>() / (to - from) as f64
    };
    let means: Vec<f64> = (0..columns).map(mean).collect();
    let extremes = |values: &[f64]| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    };
    let (least, most) = extremes(&means);
    let means: Vec<f64> =
        if least > 0.0 && most / least > 30.0 { means.iter().map(|mean| mean.ln()).collect() } else { means };
    let (least, most) = extremes(&means);
    let level = |value: &f64| {
        let share = if most > least { (value - least) / (most - least) } else { 0.0 };
        LEVELS[((share * LEVELS.len() as f64) as usize).min(LEVELS.len() - 1)]
    };
    means.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_from_its_most_to_its_least() {
        assert_eq!(sparks(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), "█▇▆▅▄▃▂▁");
        assert_eq!(sparks(&[1.0, 1.0]), "▁▁");
        assert_eq!(sparks(&[1.0]), "");
        assert_eq!(sparks(&[1.0, f64::NAN, 2.0]), "▁█");
        let long: Vec<f64> = (0..997).map(f64::from).collect();
        assert_eq!(sparks(&long).chars().count(), COLUMNS);
        // Decades have room of their own.
        assert_eq!(sparks(&[1000.0, 100.0, 10.0, 1.0]), "█▆▃▁");
    }
}
