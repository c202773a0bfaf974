//! Splits a command line into words, as a shell does, and does nothing else that a shell does: no variable, no
//! command, no file name is put in place of anything.

/// The words of a line. The error says which quote is open.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("No closing quotation".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("No closing quotation".to_owned()),
                        },
                        Some(c) => word.push(c),
                        None => return Err("No closing quotation".to_owned()),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("No escaped character".to_owned()),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let words = |line| split(line).unwrap();
        assert_eq!(words(r#"dags trigger a -c '{"n": 1}'"#), ["dags", "trigger", "a", "-c", r#"{"n": 1}"#]);
        assert_eq!(words(r#"a "b \"c\" \n" d\ e '' "f"g"#), ["a", r#"b "c" \n"#, "d e", "", "fg"]);
        assert_eq!(words("$(reboot) `id` > x; y"), ["$(reboot)", "`id`", ">", "x;", "y"], "nothing is expanded");
        assert_eq!(words(" \n\t "), [""; 0]);
        assert!(split("'a").is_err() && split("\"a").is_err() && split("\"a\\").is_err() && split("a\\").is_err());
    }
}
