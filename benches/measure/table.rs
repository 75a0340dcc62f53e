//! What was measured, as a Markdown table: figures side by side, what was wanted, and whether it was
//! reached.

use std::fmt;

/// The rows so far, and what went wrong.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 6]>,
    faults: Vec<String>,
}

/// What is wanted of callhook, in the row's unit or as a multiple of what it is compared with.
#[derive(Clone, Copy)]
pub enum Wanted {
    Nothing,
    Zero,
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

/// A row's name, and how many decimals its figures have.
pub type Name<'a> = (&'a str, usize);

impl Table {
    /// The figures of each round beside each other. What is wanted is a ratio.
    pub fn compare(&mut self, name: Name<'_>, bare: &[f64], callhook: &[f64], wanted: Wanted) {
        let ratio = median_ratio(callhook, bare);
        let beside = (Some(median(bare)), Some(median(callhook)));
        self.row(name, beside, Some(ratio), wanted.tells(ratio, 2, " ×"));
    }

    /// A figure of callhook's, beside another if there is one. What is wanted is such a figure.
    pub fn figure(&mut self, name: Name<'_>, bare: Option<f64>, callhook: f64, wanted: Wanted) {
        let verdict = wanted.tells(callhook, 0, "");
        self.row(name, (bare, Some(callhook)), bare.map(|bare| callhook / bare), verdict);
    }

    /// A figure without callhook.
    pub fn bare(&mut self, name: Name<'_>, bare: f64) {
        self.row(name, (Some(bare), None), None, Wanted::Nothing.tells(0.0, 0, ""));
    }

    /// Notes what makes the measurement unclean.
    pub fn fault(&mut self, fault: String) {
        eprintln!("not clean: {fault}");
        self.faults.push(fault);
    }

    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    fn row(
        &mut self,
        (name, decimals): Name<'_>,
        (bare, callhook): (Option<f64>, Option<f64>),
        ratio: Option<f64>,
        [wanted, verdict]: [String; 2],
    ) {
        let shown = |figure: Option<f64>, decimals| {
            figure.map(|figure| grouped(figure, decimals)).unwrap_or_default()
        };
        let ratio = shown(ratio.filter(|ratio| ratio.is_finite()), 2);
        let row = [
            name.to_owned(),
            shown(bare, decimals),
            shown(callhook, decimals),
            ratio,
            wanted,
            verdict,
        ];
        eprintln!("  {}", row.join(" | "));
        self.rows.push(row);
    }
}

impl Wanted {
    /// What is wanted, in words, and the verdict.
    fn tells(self, figure: f64, decimals: usize, unit: &str) -> [String; 2] {
        let (sign, limit, reached) = match self {
            Self::Nothing => return Default::default(),
            Self::Zero => ("", 0.0, figure == 0.0),
            Self::AtLeast(limit) => ("≥", limit, figure >= limit),
            Self::AtMost(limit) => ("≤", limit, figure <= limit),
            Self::Below(limit) => ("<", limit, figure < limit),
        };
        let verdict = if reached { "reached" } else { "missed" };
        let limit = grouped(limit, decimals);
        [format!("{sign} {limit}{unit}").trim_start().to_owned(), verdict.to_owned()]
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| measured | bare hop or bridge | callhook | ratio | wanted | |")?;
        writeln!(f, "| --- | ---: | ---: | ---: | --- | --- |")?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        for fault in &self.faults {
            writeln!(f, "\nnot clean: {fault}")?;
        }
        Ok(())
    }
}

/// NaN of nothing.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The median of the ratios of what belongs together.
pub fn median_ratio(figures: &[f64], to: &[f64]) -> f64 {
    let ratios: Vec<f64> = figures.iter().zip(to).map(|(figure, to)| figure / to).collect();
    median(&ratios)
}

/// With commas between thousands.
fn grouped(figure: f64, decimals: usize) -> String {
    let text = format!("{figure:.decimals$}");
    let digits = text.find('.').unwrap_or(text.len());
    let mut grouped = String::new();
    for (index, letter) in text.char_indices() {
        if index > 0 && index < digits && (digits - index) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(letter);
    }
    grouped
}
