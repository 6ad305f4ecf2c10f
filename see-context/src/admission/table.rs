//! The table of what a domain's XML may hold: `table.txt`, which explains itself.

/// The table as it is written.
const TABLE: &str = include_str!("table.txt");

/// Where an element is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// In every mode.
    Always,
    /// Where the network is not closed.
    Open,
    /// Where the network is not closed and the run file says `domain.allow_command_line`.
    Unread,
    /// In no mode.
    Never,
    /// Taken out in every mode.
    TakenOut,
    /// Taken out where the network is closed.
    TakenOutIfClosed,
}

/// One line: an element, under conditions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Its path and the conditions.
    pub(super) element: &'static str,
    /// Its attributes.
    pub(super) attributes: &'static str,
    /// Where it is admitted.
    pub(super) admitted: Admitted,
    /// Why.
    pub(super) why: &'static str,
    /// What to do where it is refused.
    pub(super) instead: Option<&'static str>,
}

/// All lines. One that cannot be read admits nothing, and a test finds it.
pub(super) fn rows() -> impl Iterator<Item = Row> {
    lines().filter_map(read)
}

/// The lines that are no comments.
pub(super) fn lines() -> impl Iterator<Item = &'static str> {
    TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn read(line: &'static str) -> Option<Row> {
    let mut columns = line.split(" | ");
    let element = columns.next()?;
    let attributes = columns.next()?;
    let admitted = match columns.next()? {
        "always" => Admitted::Always,
        "open" => Admitted::Open,
        "unread" => Admitted::Unread,
        "never" => Admitted::Never,
        "taken-out" => Admitted::TakenOut,
        "taken-out-if-closed" => Admitted::TakenOutIfClosed,
        _ => return None,
    };
    let why = columns.next()?;
    let instead = columns.next();
    columns.next().is_none().then_some(Row {
        element: if element == "." { "" } else { element },
        attributes,
        admitted,
        why: explained(why),
        instead,
    })
}

/// The sentence that a reason in capitals stands for.
fn explained(why: &'static str) -> &'static str {
    let mut reasons = TABLE.lines().filter_map(|line| line.strip_prefix("#   "));
    let sentence = reasons.find_map(|reason| reason.strip_prefix(why)?.strip_prefix(' '));
    match why.chars().all(|character| character.is_ascii_uppercase()) {
        true => sentence.unwrap_or_default(),
        false => why,
    }
}
