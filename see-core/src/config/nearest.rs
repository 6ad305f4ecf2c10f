//! The word that somebody who mistyped probably meant.

/// The candidate that is nearest to `word`, unless all are far.
///
/// ```
/// use see_core::config::nearest;
///
/// assert_eq!(nearest("imgae", ["path", "image"]), Some("image"));
/// assert_eq!(nearest("banana", ["path", "image"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// A word longer than this was no slip of the finger, and comparing takes quadratic time.
    const LONGEST: usize = 256;
    /// Words of one family, such as `results` and `results_folder`, are that similar.
    const SIMILAR: f64 = 0.88;

    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let slips = strsim::damerau_levenshtein(&word, &lower);
            let similar = strsim::jaro_winkler(&word, &lower);
            let allowed = (word.chars().count() / 3).max(1);
            let is_near = slips <= allowed && slips < lower.chars().count();
            (is_near || similar >= SIMILAR).then_some((slips, similar, candidate))
        })
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(.., candidate)| candidate)
}

/// The advice of an error about `word`, where one of the candidates is near.
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|near| format!("did you mean `{near}`?"))
}

/// Names in a message: `` `a`, `b` or `c` ``.
pub(super) fn alternatives(names: &[&str]) -> String {
    match names {
        [] => String::from("nothing"),
        [only] => format!("`{only}`"),
        [names @ .., last] => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("{} or `{last}`", names.join(", "))
        }
    }
}
