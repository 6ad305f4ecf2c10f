//! A sample's path in a command for a shell: always one word, never a part of the program.
//!
//! The path is not written into the command's text, where its quotes, spaces or line breaks would be read as the
//! shell's. It is an argument of the shell, and the text refers to it by a variable that is not exported, so that the
//! sample's own environment tells nothing of it. What a shell takes from a variable it does not read as a program
//! again. The text is scanned only to know where quotes have to stand around the variable. Where shells differ, or
//! the scanner does not follow them, a reference to the sample is refused: nothing is guessed.

use see_agent::protocol::SAMPLE_PLACEHOLDER;

/// How a reference to the sample may also be spelled, as it is in run files.
const REFERENCE: &str = "${sample}";
/// The shell's variable with the path.
const VARIABLE: &str = "${see_sample}";

/// The arguments that run this text in a POSIX shell.
///
/// `{sample}` and `${sample}` in it become the path of the sample as one word, in whatever quotes they stand.
///
/// # Errors
/// A text that says why not, where it refers to the sample within or behind something that is not followed.
pub(super) fn posix(text: &str) -> Result<Vec<String>, String> {
    let mut arguments = vec!["/bin/sh".to_owned(), "-c".to_owned()];
    if placeholder(text).is_none() && !text.contains(SAMPLE_PLACEHOLDER) {
        arguments.push(text.to_owned());
        return Ok(arguments);
    }
    let text = Scanner::new(text).referring()?;
    arguments.push(format!("see_sample=$1; shift; {text}"));
    // The name under which the shell complains, as it would without further arguments.
    arguments.push("/bin/sh".to_owned());
    arguments.push(SAMPLE_PLACEHOLDER.to_owned());
    Ok(arguments)
}

/// `${sample}` in the one spelling that agents know.
pub(super) fn as_placeholder(text: &str) -> String {
    text.replace(REFERENCE, SAMPLE_PLACEHOLDER)
}

/// The length of the reference to the sample at the start of this text.
fn placeholder(rest: &str) -> Option<usize> {
    [SAMPLE_PLACEHOLDER, REFERENCE]
        .into_iter()
        .find(|spelling| rest.starts_with(spelling))
        .map(str::len)
}

/// What the scanner is inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    DoubleQuotes,
    Backticks,
    /// `$(…)` or `(…)`.
    Parentheses,
    /// `$((…))`.
    Arithmetic,
    /// `${…}`; what counts as quoted is what did around it.
    Braces {
        quoted: bool,
    },
}

/// A here-document that begins with the next line.
#[derive(Debug)]
struct Document {
    end: String,
    strips_tabs: bool,
    /// Its end is quoted: nothing is expanded in it.
    is_literal: bool,
}

struct Scanner<'a> {
    rest: &'a str,
    done: String,
    inside: Vec<Inside>,
    documents: Vec<Document>,
    /// How deep it is inside of where `((` began: two subshells, or arithmetic, as the shell likes.
    double: Option<usize>,
    /// What was met that is not followed: from there on nothing is known of quotes.
    lost: Option<&'static str>,
    /// In or behind what a reference was met.
    refused: Option<&'static str>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            done: String::with_capacity(text.len() + 64),
            inside: Vec::new(),
            documents: Vec::new(),
            double: None,
            lost: None,
            refused: None,
        }
    }

    /// The text with a reference to the variable in place of each to the sample.
    fn referring(mut self) -> Result<String, String> {
        while let Some(next) = self.rest.chars().next() {
            if let Some(length) = placeholder(self.rest) {
                self.rest = &self.rest[length..];
                let quote = if self.is_quoted() { "" } else { "\"" };
                self.refer(quote, quote);
            } else if self.is_quoted() {
                self.quoted(next);
            } else {
                self.plain(next);
            }
        }
        // What became a word of the text could, with the braces around it, be a reference for the agent.
        let is_new = self.done.contains(SAMPLE_PLACEHOLDER);
        match self.refused.or(is_new.then_some("braces around it")) {
            None => Ok(self.done),
            Some(what) => Err(format!(
                "whether `{SAMPLE_PLACEHOLDER}` would be one word is not known behind {what}: begin the command with \
                 `file={SAMPLE_PLACEHOLDER};` and write `\"$file\"` from there on, or give a list of arguments"
            )),
        }
    }

    /// From here on nothing is known of quotes.
    fn lose(&mut self, what: &'static str) {
        self.lost.get_or_insert(what);
    }

    fn refer(&mut self, before: &str, after: &str) {
        self.refused = self.refused.or(self.lost);
        for part in [before, VARIABLE, after] {
            self.done.push_str(part);
        }
    }

    /// Whether double quotes hold words together here.
    fn is_quoted(&self) -> bool {
        match self.inside.last() {
            Some(Inside::DoubleQuotes) => true,
            Some(Inside::Braces { quoted }) => *quoted,
            _ => false,
        }
    }

    /// Copies this many bytes.
    fn copy(&mut self, count: usize) {
        let (copied, rest) = self.rest.split_at(count);
        self.done.push_str(copied);
        self.rest = rest;
    }

    /// A backslash and what it escapes. A reference to the sample stays one.
    fn escape(&mut self) {
        if self.inside.contains(&Inside::Backticks) {
            self.lose("a backslash between backticks");
        }
        let after = self.rest[1..].chars().next();
        if placeholder(&self.rest[1..]) == Some(SAMPLE_PLACEHOLDER.len()) {
            self.rest = &self.rest[1..];
        } else {
            self.copy(1 + after.map_or(0, char::len_utf8));
        }
    }

    /// What means the same in double quotes and outside of them.
    fn expansion(&mut self, next: char) -> bool {
        let quoted = self.is_quoted();
        if next == '`' {
            if self.inside.contains(&Inside::Backticks)
                && self.inside.last() != Some(&Inside::Backticks)
            {
                self.lose("a backtick in quotes between backticks");
            }
            self.toggle(Inside::Backticks);
        } else if self.rest.starts_with("$((") {
            self.inside.push(Inside::Arithmetic);
            self.copy(2);
        } else if self.rest.starts_with("$(") {
            self.inside.push(Inside::Parentheses);
            self.copy(1);
        } else if self.rest.starts_with("${") {
            self.inside.push(Inside::Braces { quoted });
            self.copy(1);
        } else if next == '}' && matches!(self.inside.last(), Some(Inside::Braces { .. })) {
            self.inside.pop();
        } else {
            return false;
        }
        self.copy(1);
        true
    }

    fn toggle(&mut self, kind: Inside) {
        if self.inside.last() == Some(&kind) {
            self.inside.pop();
        } else {
            self.inside.push(kind);
        }
    }

    fn quoted(&mut self, next: char) {
        let escapes = ["\\\\", "\\\"", "\\$", "\\`"];
        if escapes.iter().any(|escape| self.rest.starts_with(escape)) {
            if self.inside.contains(&Inside::Backticks) {
                self.lose("a backslash between backticks");
            }
            self.copy(2);
        } else if next == '"' {
            self.toggle(Inside::DoubleQuotes);
            self.copy(1);
        } else if !self.expansion(next) {
            self.copy(next.len_utf8());
        }
    }

    fn plain(&mut self, next: char) {
        match next {
            '\\' => self.escape(),
            '\'' => self.single_quotes(),
            '"' => {
                self.inside.push(Inside::DoubleQuotes);
                self.copy(1);
            }
            '(' => {
                if self.rest.starts_with("((") {
                    self.double.get_or_insert(self.inside.len() + 2);
                }
                self.inside.push(Inside::Parentheses);
                self.copy(1);
            }
            'c' if self.is_case() => {
                self.lose("`case` in parentheses");
                self.copy(1);
            }
            '$' if self.rest.starts_with("$'") => self.dollar_quotes(),
            ')' => {
                let is_double = self.rest.starts_with("))");
                match self.inside.last() {
                    Some(Inside::Parentheses) => drop(self.inside.pop()),
                    Some(Inside::Arithmetic) if is_double => {
                        self.inside.pop();
                        self.copy(1);
                    }
                    _ => {}
                }
                if self.double.is_some_and(|depth| self.inside.len() < depth) {
                    self.double = None;
                }
                self.copy(1);
            }
            '<' if self.rest.starts_with("<<<") => self.copy(3),
            '#' if self.is_at_word_start() => self.comment(),
            '<' if self.is_here_document() => self.here(),
            '\n' => {
                self.copy(1);
                for document in std::mem::take(&mut self.documents) {
                    self.document(&document);
                }
            }
            _ if self.expansion(next) => {}
            _ => self.copy(next.len_utf8()),
        }
    }

    /// Not a shift.
    fn is_here_document(&self) -> bool {
        self.rest.starts_with("<<") && !self.inside.contains(&Inside::Arithmetic)
    }

    /// `case` where the `)` of its patterns would be taken for the end of something else.
    fn is_case(&self) -> bool {
        let after = self.rest.strip_prefix("case");
        let is_word = after.is_some_and(|after| after.starts_with(char::is_whitespace));
        is_word && self.is_at_word_start() && self.inside.contains(&Inside::Parentheses)
    }

    /// `$'…'`, which is quotes of their own to some shells, and a dollar in front of quotes to others. Where that makes
    /// no difference to what follows it is copied.
    fn dollar_quotes(&mut self) {
        let within = self.rest[2..].split('\'').next().unwrap_or_default();
        let refers = within.contains(SAMPLE_PLACEHOLDER) || within.contains(REFERENCE);
        if refers || within.ends_with('\\') {
            self.lose("`$'`");
        }
        self.copy(1);
        self.single_quotes();
    }

    fn is_at_word_start(&self) -> bool {
        let before = self.done.chars().next_back();
        before.is_none_or(|before| before.is_whitespace() || ";&|()`".contains(before))
    }

    /// Up to the next single quote nothing has a meaning: the quotes are left and entered again around the variable.
    fn single_quotes(&mut self) {
        self.copy(1);
        while let Some(next) = self.rest.chars().next() {
            if let Some(length) = placeholder(self.rest) {
                self.rest = &self.rest[length..];
                self.refer("'\"", "\"'");
                continue;
            }
            self.copy(next.len_utf8());
            if next == '\'' {
                return;
            }
        }
    }

    /// A comment loses its references: a line break in the path would end it.
    fn comment(&mut self) {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let (comment, rest) = self.rest.split_at(end);
        self.done
            .push_str(&comment.replace(SAMPLE_PLACEHOLDER, "sample"));
        self.rest = rest;
    }

    /// The start of a here-document: `<<END`, `<<-END`, `<<'END'`.
    fn here(&mut self) {
        self.copy(2);
        if self.double.is_some() {
            // A shift to one shell, and a here-document to another.
            return self.lose("`<<` in `((`");
        }
        let strips_tabs = self.rest.starts_with('-');
        if strips_tabs {
            self.copy(1);
        }
        let blanks = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
        self.copy(blanks);
        let is_end = |c: char| c.is_whitespace() || ";&|()<>".contains(c);
        let length = self.rest.find(is_end).unwrap_or(self.rest.len());
        let word = self.rest[..length].replace(SAMPLE_PLACEHOLDER, "sample");
        self.rest = &self.rest[length..];
        self.done.push_str(&word);
        let is_odd = |quote| word.matches(quote).count() % 2 == 1;
        let ends_strangely = self
            .rest
            .starts_with(|next: char| next.is_whitespace() && !" \t\n".contains(next));
        if ends_strangely
            || is_odd('\'')
            || is_odd('"')
            || word.ends_with('\\')
            || word.contains(['`', '$'])
        {
            return self.lose("a here-document whose end is no plain word");
        }
        let end = word.replace(['\'', '"', '\\'], "");
        let is_literal = end.len() < word.len();
        self.documents.push(Document {
            end,
            strips_tabs,
            is_literal,
        });
    }

    /// The lines of a here-document: no quotes have a meaning in it.
    fn document(&mut self, document: &Document) {
        let (mut refers, mut runs, mut continues) = (false, false, false);
        while !self.rest.is_empty() {
            let length = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
            let (line, rest) = self.rest.split_at(length);
            self.rest = rest;
            let line = as_placeholder(line);
            refers |= line.contains(SAMPLE_PLACEHOLDER);
            if !document.is_literal {
                runs |= line.contains("$(") || line.contains('`');
                // The next line is a part of this one, and not the end.
                continues |= line.trim_end_matches('\n').ends_with('\\');
            }
            self.done
                .push_str(&line.replace(SAMPLE_PLACEHOLDER, VARIABLE));
            let line = line.trim_end_matches('\n');
            let line = match document.strips_tabs {
                true => line.trim_start_matches('\t'),
                false => line,
            };
            if line == document.end {
                break;
            }
        }
        if runs && refers {
            self.refused.get_or_insert("a command in a here-document");
        }
        if continues {
            self.lose("a here-document with a backslash at the end of a line");
        }
    }
}

#[cfg(test)]
mod tests;
