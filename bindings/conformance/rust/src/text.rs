//! The text of programs: instructions, words, options.

/// One instruction: its words, bodies without their brackets.
pub type Words = Vec<String>;

/// The instructions of a program. What is only a number is none: it tells how many results a body has.
pub fn instructions(text: &str) -> Vec<Words> {
    let (mut all, mut words, mut word, mut depth) = (Vec::new(), Vec::new(), String::new(), 0);
    for c in text.chars().chain([';']) {
        if depth == 0 && (c == ' ' || c == ';' || c == '\n') {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if c == ';' && !words.is_empty() {
                all.push(std::mem::take(&mut words));
            }
            continue;
        }
        if c == '[' {
            depth += 1;
        }
        if c == ']' {
            depth -= 1;
        }
        word.push(c);
    }
    all.retain(|w: &Words| !w[0].starts_with(|c: char| c.is_ascii_digit()));
    all
}

/// A body without its brackets.
pub fn body_of(words: &[String]) -> &str {
    let word = words.last().map_or("", String::as_str);
    word.strip_prefix('[')
        .and_then(|w| w.strip_suffix(']'))
        .unwrap_or(word)
}

/// The value of an option of this instruction.
pub fn option<'w>(words: &'w [String], name: &str) -> Option<&'w str> {
    words
        .iter()
        .find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
}

/// An option that is a number.
pub fn count(words: &[String], name: &str) -> Option<i64> {
    option(words, name)?.parse().ok()
}

/// "CPU:1,disk:0.5"
pub fn amounts(text: &str) -> Vec<(&str, f64)> {
    text.split(',')
        .filter_map(|part| part.rsplit_once(':'))
        .map(|(n, a)| (n, a.parse().unwrap_or_default()))
        .collect()
}
